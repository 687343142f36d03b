"""The command line: arguments in, one of the commands run, an exit code out."""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from minisplade import __version__, commands, index_commands, model_commands
from minisplade.arguments import (
    INPUT_HELP,
    MODEL_ACTIONS,
    Parser,
    add_command,
    add_input_options,
    add_json_option,
    add_model_option,
    add_view_options,
    named_file,
    names,
    positive,
)
from minisplade.display import drop_output, prepare_output, say
from minisplade.errors import MiniSpladeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0 for success, 1 for an error, 130 after Ctrl-C; wrong usage exits with 2.
    """
    options = make_parser().parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    options.command_line = shlex.join(["minisplade", *given])
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(options.verbose, 2)]
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("minisplade").setLevel(level)
    prepare_output()
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()
    except MiniSpladeError as error:
        return _fail(str(error))
    except OSError as error:
        reason = error.strerror or str(error)
        return _fail(f"{error.filename}: {reason}" if error.filename else reason)
    except MemoryError as error:
        return _fail(f"not enough memory {error}".strip())
    except KeyboardInterrupt:
        say("minisplade: interrupted; nothing half-written was kept")
        return 130
    return 0


def _fail(message: str) -> int:
    say(f"minisplade: {message}")
    return 1


def make_parser() -> argparse.ArgumentParser:
    """Describe all commands."""
    parser = Parser(
        prog="minisplade",
        description="Learned sparse retrieval (SPLADE) without torch.",
        epilog="Start with `minisplade demo`. Each command has its own --help with examples.",
    )
    parser.add_argument("--version", action="version", version=f"minisplade {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_encoding(subparsers)
    _add_index_commands(subparsers)
    _add_search(subparsers)
    _add_views(subparsers)
    _add_evaluation(subparsers)
    _add_models(subparsers)
    _add_others(subparsers)
    return parser


def _add_encoding(subparsers: Any) -> None:
    """Describe the commands that turn texts into vectors, or into an index file."""
    command = add_command(
        subparsers,
        "encode",
        commands.encode,
        "turn texts into sparse vectors",
        """\
  echo "a cat sat on the mat" | minisplade encode
  minisplade encode docs.jsonl.gz -o docs.vectors     one safetensors file
  minisplade encode questions.txt --query --top 10    ten heaviest terms of each""",
    )
    command.add_argument("input", nargs="?", default="-", help=f"{INPUT_HELP} (default)")
    command.add_argument("-o", "--output", help="write a vectors file instead of JSON lines")
    command.add_argument("--query", action="store_true", help="encode as queries, not documents")
    command.add_argument("--top", type=positive, metavar="N", help="keep the N heaviest terms")
    add_input_options(command)
    add_model_option(command)

    command = add_command(
        subparsers,
        "index",
        commands.index,
        "encode documents and write an index file; see also `index add`",
        """\
  minisplade index docs.jsonl -o docs.minisplade
  minisplade index table.csv -o t.minisplade --key-field sku --text-fields name,notes
  cat notes.txt | minisplade index - -o notes.minisplade""",
    )
    command.add_argument("input", help=INPUT_HELP)
    command.add_argument("-o", "--output", required=True, help="the index file to write")
    command.add_argument("--no-texts", action="store_true", help="do not keep the texts for hits")
    command.add_argument(
        "--compact", action="store_true", help="search in two thirds of the memory, but slower"
    )
    add_input_options(command)
    add_model_option(command)


def _add_index_commands(subparsers: Any) -> None:
    """Describe the commands for an index in a folder, which can be changed."""
    for name, run, summary, examples in (
        (
            "add",
            index_commands.add,
            "add documents to an index in a folder, which is made if need be",
            """\
  minisplade index add books docs.jsonl --metadata-fields year,lang
  cat more.jsonl | minisplade index add books -     those with the same keys are replaced""",
        ),
        (
            "update",
            index_commands.update,
            "replace documents of an index in a folder by key",
            """\
  minisplade index update books corrected.jsonl
  minisplade index update books table.csv --key-field sku --text-fields name,notes""",
        ),
    ):
        command = add_command(subparsers, f"index {name}", run, summary, examples)
        command.add_argument("index", help="the folder")
        command.add_argument("input", help=INPUT_HELP)
        command.add_argument("--no-texts", action="store_true", help="do not keep texts for hits")
        command.add_argument(
            "--commit-every",
            type=positive,
            default=10_000,
            metavar="N",
            help="commit after so many documents, and at the end (10000)",
        )
        if name == "add":
            command.add_argument(
                "--compact", action="store_true", help="a new index searches in less memory"
            )
        group = add_input_options(command)
        group.add_argument(
            "--metadata-fields", metavar="A,B", type=names, help="fields kept for --where"
        )
        add_model_option(command, "the one that the index was made with, else splade-tiny")

    command = add_command(
        subparsers,
        "index delete",
        index_commands.delete,
        "delete documents of an index in a folder",
        """\
  minisplade index delete books b1-0 b1-1
  minisplade index delete books --where '{"year":{"<":1900}}'""",
    )
    command.add_argument("index", help="the folder")
    command.add_argument("keys", nargs="*", help="the keys of the documents")
    command.add_argument("--where", metavar="JSON", help="all documents with this metadata")

    command = add_command(
        subparsers,
        "index stats",
        index_commands.stats,
        "show how large an index in a folder is",
        """\
  minisplade index stats books
  minisplade index stats books --json""",
    )
    command.add_argument("index", help="the folder")
    add_json_option(command, "one JSON line")

    command = add_command(
        subparsers,
        "index verify",
        index_commands.verify,
        "check the files of an index in a folder",
        """\
  minisplade index verify books            the sizes of files, at once
  minisplade index verify books --full     every byte""",
    )
    command.add_argument("index", help="the folder")
    command.add_argument("--full", action="store_true", help="read everything")

    command = add_command(
        subparsers,
        "index merge",
        index_commands.merge,
        "make large segments of small ones, while others read and write",
        """\
  minisplade index merge books           where there are many of a size
  minisplade index merge books --all     all into one, without what is deleted""",
    )
    command.add_argument("index", help="the folder")
    command.add_argument("--all", action="store_true", help="into a single segment")

    command = add_command(
        subparsers,
        "index export",
        index_commands.export,
        "write all documents and their vectors as JSON lines",
        """\
  minisplade index export books -o books.jsonl
  minisplade index export books -o /srv/backup/books.jsonl""",
    )
    command.add_argument("index", help="the folder")
    command.add_argument("-o", "--output", required=True, help="the file to write")

    command = add_command(
        subparsers,
        "index import",
        index_commands.import_,
        "add what `index export` wrote to an index in a folder",
        """\
  minisplade index import books books.jsonl
  minisplade index import copy books.jsonl     which is made if need be""",
    )
    command.add_argument("index", help="the folder")
    command.add_argument("input", help="the file")


def _add_search(subparsers: Any) -> None:
    """Describe the command that searches an index."""
    command = add_command(
        subparsers,
        "search",
        commands.search,
        "search an index",
        """\
  minisplade search docs.minisplade "how do vaccines work"
  minisplade search docs.minisplade -k 100 --queries questions.jsonl > hits.jsonl
  minisplade search books whales --where '{"year":1990}'     in a folder of `index add`""",
    )
    command.add_argument("index", help="a file of `minisplade index` or a folder of `index add`")
    command.add_argument("query", nargs="*", help="the question; several words need no quotes")
    command.add_argument("--queries", metavar="FILE", help="one query a record; see `index INPUT`")
    command.add_argument("-k", type=positive, default=10, help="hits for each query (10)")
    command.add_argument("--where", metavar="JSON", help="only documents with this metadata")
    add_json_option(command)
    add_input_options(command)
    add_model_option(command, "the one that the index was made with")


def _add_views(subparsers: Any) -> None:
    """Describe the commands that show why vectors are what they are."""
    command = add_command(
        subparsers,
        "explain",
        commands.explain,
        "show which words the terms of a text, or the score of a document, come from",
        """\
  minisplade explain "the bank raised interest rates"
  minisplade explain --query "travel by sea" --document "a sailor crosses the ocean"
  minisplade explain "the bank raised interest rates" --html why.html""",
    )
    command.add_argument("text", nargs="*", help="a text, taken as a document")
    command.add_argument("--query", help="a query; alone, or with --document")
    command.add_argument("--document", help="a document; with --query, its score is explained")
    command.add_argument("--top", type=positive, metavar="N", help="show the N heaviest terms")
    add_view_options(command)
    add_model_option(command)

    command = add_command(
        subparsers,
        "trace",
        commands.trace,
        "walk through all that the model computes for a text",
        """\
  minisplade trace "the bank raised interest rates"
  minisplade trace "the bank raised interest rates" --terms bank,money,river
  minisplade trace "the bank raised interest rates" --html trace.html""",
    )
    command.add_argument("text", nargs="*", help="a text, best a short one")
    command.add_argument(
        "--terms", type=names, metavar="A,B", help="terms to follow (the 12 heaviest)"
    )
    add_view_options(command)
    add_model_option(command)


def _add_evaluation(subparsers: Any) -> None:
    """Describe the command that measures a model."""
    command = add_command(
        subparsers,
        "eval",
        commands.evaluate,
        "measure a model on test collections, beside BM25 and fused with it",
        """\
  minisplade eval splade-tiny beir/scifact
  minisplade eval ./my-model beir/scifact beir/nfcorpus -o report     writes report/report.html
  minisplade eval splade-tiny msmarco --split dev.small --run-file theirs=run.trec""",
    )
    command.add_argument("model", help="a folder, a known name or a Hub id")
    command.add_argument(
        "data", nargs="+", help="folders in the layout of BEIR, MS MARCO or TREC, one a collection"
    )
    command.add_argument(
        "-o", "--output", metavar="FOLDER", help="write an HTML and Markdown report, and all runs"
    )
    command.add_argument(
        "--systems",
        metavar="A,B",
        type=names,
        default="bm25,splade,hybrid",
        help="of bm25, splade, hybrid, rrf and words; the first is the baseline "
        "(bm25,splade,hybrid)",
    )
    command.add_argument(
        "--rerank", metavar="MODEL", help="a cross-encoder that judges the last system's best again"
    )
    command.add_argument("--split", default="test", help="which judgements to use (test)")
    command.add_argument(
        "--max-seq-length", metavar="N", type=positive, help="cut documents after N tokens"
    )
    command.add_argument(
        "--depth", type=positive, default=100, help="documents of each ranking (100)"
    )
    command.add_argument(
        "--run-file",
        metavar="NAME=FILE",
        type=named_file,
        action="append",
        default=[],
        help="measure a run in TREC's format too",
    )
    command.add_argument(
        "--cache", metavar="FOLDER", help="where vectors are kept, for the next time"
    )
    add_json_option(command)


def _add_models(subparsers: Any) -> None:
    """Describe the command for models."""
    command = add_command(
        subparsers,
        "models",
        model_commands.models,
        "list known models; fetch, explain, convert or verify one",
        """\
  minisplade models
  minisplade models pull splade-tiny
  minisplade models pull owner/name            any SPLADE model on the Hugging Face Hub
  minisplade models inspect path/to/model      what it is, what of it is used, what is not and why
  minisplade models convert old/ new/          one safetensors folder; --float16 for half the size
  minisplade models verify new/                its vectors, against those stored with it""",
    )
    command.add_argument("action", nargs="?", choices=MODEL_ACTIONS, default="list")
    command.add_argument("name", nargs="?", help="a known name, a Hub id or a folder")
    command.add_argument("target", nargs="?", help="the new folder, for convert")
    command.add_argument("--float16", action="store_true", help="convert: round to half precision")
    command.add_argument(
        "--vectors", metavar="FILE", help="verify: JSON of texts and weights, not the model's own"
    )
    add_json_option(command)


def _add_others(subparsers: Any) -> None:
    """Describe the demo, and the commands for this machine."""
    command = add_command(
        subparsers,
        "demo",
        commands.demo,
        "ask the documentation of Python's standard library",
        """\
  minisplade demo                              builds the index once, answers a few questions
  minisplade demo "how do I compress a file"   answers yours""",
    )
    command.add_argument("question", nargs="*", help="your question")
    command.add_argument("-k", type=positive, default=5, help="hits for each question (5)")
    command.add_argument("--json", action="store_true", help="JSON lines instead of a table")

    command = add_command(
        subparsers,
        "info",
        model_commands.info,
        "show the CPU, the kernel path in use, threads, versions and folders",
        """\
  minisplade info
  MINISPLADE_PATH=tiles minisplade info --json""",
    )
    add_json_option(command, "one JSON line")

    add_command(
        subparsers,
        "warmup",
        model_commands.warmup,
        "compile the kernels now, so that no later call waits for it",
        """\
  minisplade warmup                               after installing, or while building an image
  MINISPLADE_CACHE=/srv/cache minisplade warmup   into a folder that ships with the image""",
    )
