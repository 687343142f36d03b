"""Pages of HTML that need nothing beside themselves: no other file, no network, light and dark."""

import json
import os
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from minisplade.files import replacing

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What browsers are told to hold a page to: nothing may be fetched."""

SCRIPT_POLICY = f"{POLICY}; script-src 'unsafe-inline'"
"""The same for a page that has a script."""


def page(title: str, body: str, script: str = "", values: dict[str, Any] | None = None) -> str:
    """Put a body of HTML into a page with the common style.

    script: JavaScript that runs when all is there; it finds values as the constant `values`.
    """
    policy = SCRIPT_POLICY if script else POLICY
    if script:
        script = f"<script>\nconst values = {_as_json(values or {})};\n{script}</script>\n"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{beside(__file__, 'pages.css')}</style>\n"
        f"</head>\n<body>\n{body}\n{script}</body>\n</html>\n"
    )


def write_page(path: str | os.PathLike[str], content: str) -> None:
    """Write a page, in place of an older one only when all is written; raises InputError."""
    with replacing(path) as file:
        # A text may have what UTF-8 cannot carry; encoders refuse it, titles need not.
        file.write(content.encode("utf-8", "replace"))


def element(tag: str, content: str, **attributes: object) -> str:
    """Write an element; content is HTML, attributes are text, and those that are None left out.

    Names of attributes have _ for - and a trailing _ for words of Python: class_, data_at.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{content}</{tag}>"


@cache
def beside(module: str, name: str) -> str:
    """Read a file that lies beside a module, such as its script."""
    return Path(module).with_name(name).read_text(encoding="utf-8")


def _as_json(values: dict[str, Any]) -> str:
    """Write JSON that cannot end the script that it stands in."""
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
