"""What the description of a command line is made of: the parser, commands, options and types."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

MODEL_ACTIONS = ("list", "pull", "inspect", "convert", "verify")
COMMANDS = (
    "encode",
    "index",
    "index add",
    "index update",
    "index delete",
    "index stats",
    "index verify",
    "index merge",
    "index export",
    "index import",
    "search",
    "explain",
    "trace",
    "eval",
    "models",
    "demo",
    "info",
    "warmup",
)

INPUT_HELP = (
    "JSON lines (.jsonl), .csv, .tsv or plain text with one document a line, each also as .gz; "
    "- is standard input"
)


class Parser(argparse.ArgumentParser):
    """A parser that takes commands of two words, and guesses what a mistyped one should be."""

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse arguments; the first two are one command where they name it together."""
        words = list(sys.argv[1:] if args is None else args)
        if " ".join(words[:2]) in COMMANDS:
            words[:2] = [" ".join(words[:2])]
        return super().parse_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with 2."""
        typed = re.search(r"invalid choice: '([^']*)'", message)
        close = get_close_matches(typed[1], (*COMMANDS, *MODEL_ACTIONS), n=1) if typed else []
        super().error(f"{message}; did you mean {close[0]!r}?" if close else message)


def add_command(
    subparsers: Any, name: str, run: Callable[..., None], summary: str, examples: str
) -> argparse.ArgumentParser:
    """Describe a command; run: what it does, given its parsed arguments; examples: of its help."""
    command: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run, parser=command)
    command.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv: all")
    return command


def add_input_options(command: argparse.ArgumentParser) -> Any:
    """Add what says how the fields of an input are read; returns their group."""
    group = command.add_argument_group("input fields")
    group.add_argument("--key-field", metavar="NAME", help="field with the key (_id or id)")
    group.add_argument(
        "--text-fields", metavar="A,B", type=names, help="fields joined as text (title,text)"
    )
    group.add_argument(
        "--skip-bad", action="store_true", help="count bad lines instead of stopping"
    )
    return group


def add_view_options(command: argparse.ArgumentParser) -> None:
    """Add what says how a view is shown."""
    command.add_argument("--html", metavar="FILE", help="write a page for the browser instead")
    add_json_option(command)


def add_json_option(command: argparse.ArgumentParser, what: str = "JSON lines") -> None:
    """Add what asks for JSON where a table would be shown."""
    command.add_argument("--json", action="store_true", help=f"{what} even on a terminal")


def add_model_option(command: argparse.ArgumentParser, default: str = "splade-tiny") -> None:
    """Add the choice of a model; default: which one it is otherwise, in words."""
    command.add_argument(
        "-m", "--model", help=f"a folder, a known name or a Hub id (default: {default})"
    )


def positive(text: str) -> int:
    """Read a whole number above 0."""
    number = int(text)
    if not 1 <= number < 1 << 31:
        raise ValueError(text)
    return number


def names(text: str) -> list[str]:
    """Read names between commas."""
    found = [name.strip() for name in text.split(",")]
    if "" in found:
        raise ValueError(text)
    return found


def named_file(text: str) -> tuple[str, str]:
    """Read NAME=FILE."""
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise ValueError(text)
    return name, path


# argparse shows these names in its errors.
positive.__name__ = "whole number above 0"
names.__name__ = "list of names"
named_file.__name__ = "NAME=FILE"
