"""Run the code of docs/tour.md, and write what it prints and draws into the tour.

  python scripts/make_tour.py

Blocks marked python run one after the other, in one process; a block marked text after one of them
is replaced by what that one printed. Files that the code writes go to docs/tour.
"""

import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

TOUR = Path(__file__).parents[1] / "docs" / "tour.md"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.S)


def run_blocks(markdown: str) -> Iterator[tuple[str, str | None, str]]:
    """Run each block of Python; yield its code, what the tour says it prints, and what it does."""
    names: dict[str, object] = {}
    for block in BLOCK.finditer(markdown):
        printed = StringIO()
        with redirect_stdout(printed):
            exec(compile(block[1], "tour.md", "exec"), names)
        yield block[1], block[2], printed.getvalue()


def main() -> None:
    """Bring the tour up to date."""
    markdown = TOUR.read_text(encoding="utf-8")
    folder = TOUR.with_suffix("")
    folder.mkdir(exist_ok=True)
    before = os.getcwd()
    os.chdir(folder)
    try:
        done = list(run_blocks(markdown))
    finally:
        os.chdir(before)
    written = iter(done)

    def renewed(block: re.Match[str]) -> str:
        code, _, printed = next(written)
        output = f"\n```text\n{printed}```\n" if printed else ""
        return f"```python\n{code}```\n{output}"

    TOUR.write_text(BLOCK.sub(renewed, markdown), encoding="utf-8")


if __name__ == "__main__":
    main()
