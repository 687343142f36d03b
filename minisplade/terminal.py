"""Text for terminals: colours where they are wanted, bars, and nothing that could steer them."""

import os
import shutil
import sys
import textwrap

BOLD, DIM, BLUE, ORANGE = "1", "2", "34", "33"
"""Codes of ECMA-48, section 8.3.117, that every colour scheme of a terminal knows."""

EIGHTHS = " ▏▎▍▌▋▊▉█"
SHADES = " ░▒▓█"


def has_colours() -> bool:
    """Tell whether results go to a terminal whose owner did not switch colours off."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and sys.stdout.isatty()


def styled(text: str, code: str) -> str:
    """Put text between a style and its end, where there are colours."""
    return f"\033[{code}m{text}\033[0m" if has_colours() else text


def width() -> int:
    """Return the columns of the terminal, or 110 where there is none."""
    return shutil.get_terminal_size((110, 24)).columns


def bar(share: float, columns: int) -> str:
    """Draw a share of 0 to 1 as a bar that fills so many columns at 1, to an eighth of one."""
    eighths = max(1, round(share * columns * 8)) if share > 0 else 0
    return (EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def shade(share: float) -> str:
    """Draw a share of 0 to 1 as one character, the fuller the more."""
    return SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]


def paragraph(text: str, indent: str) -> list[str]:
    """Break prose into lines, none longer than 96 characters or the terminal."""
    columns = max(40, min(96, width()))
    return textwrap.wrap(text, columns, initial_indent=indent, subsequent_indent=indent)


def on_one_line(text: str) -> str:
    """Join lines, and replace characters that could steer the terminal."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Replace characters that could steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
