"""The command line: arguments in, calls out; the only module that prints."""

import argparse
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from minisplade import __version__
from minisplade.errors import InputError, MiniSpladeError

if TYPE_CHECKING:
    from minisplade.encoder import SparseEncoder
    from minisplade.index import Hits, Index
    from minisplade.records import Record
    from minisplade.vectors import SparseVector, SparseVectors

SNIPPET = 96
SHOWN_TERMS = 6

INPUT_HELP = (
    "JSON lines (.jsonl), .csv, .tsv or plain text with one document a line, each also as .gz; "
    "- is standard input"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, 1 for an error, 2 for wrong usage."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(options.verbose, 2)]
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("minisplade").setLevel(level)
    try:
        options.run(options)
        sys.stdout.flush()
    except MiniSpladeError as error:
        print(f"minisplade: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"minisplade: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("minisplade: interrupted; nothing half-written was kept", file=sys.stderr)
        return 130
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Describe all commands."""
    parser = argparse.ArgumentParser(
        prog="minisplade",
        description="Learned sparse retrieval (SPLADE) without torch.",
        epilog="Start with `minisplade demo`. Each command has its own --help with examples.",
    )
    parser.add_argument("--version", action="version", version=f"minisplade {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = _command(
        commands,
        "encode",
        encode,
        "turn texts into sparse vectors",
        """\
  echo "a cat sat on the mat" | minisplade encode
  minisplade encode docs.jsonl.gz -o docs.vectors     one safetensors file
  minisplade encode questions.txt --query --top 10    ten heaviest terms of each""",
    )
    command.add_argument("input", nargs="?", default="-", help=f"{INPUT_HELP} (default)")
    command.add_argument("-o", "--output", help="write a vectors file instead of JSON lines")
    command.add_argument("--query", action="store_true", help="encode as queries, not documents")
    command.add_argument("--top", type=_positive, metavar="N", help="keep the N heaviest terms")
    _add_input_options(command)
    _add_model_option(command)

    command = _command(
        commands,
        "index",
        index,
        "encode documents and write an index",
        """\
  minisplade index docs.jsonl -o docs.minisplade
  minisplade index table.csv -o t.minisplade --key-field sku --text-fields name,notes
  cat notes.txt | minisplade index - -o notes.minisplade""",
    )
    command.add_argument("input", help=INPUT_HELP)
    command.add_argument("-o", "--output", required=True, help="the index file to write")
    command.add_argument("--no-texts", action="store_true", help="do not keep the texts for hits")
    _add_input_options(command)
    _add_model_option(command)

    command = _command(
        commands,
        "search",
        search,
        "search an index",
        """\
  minisplade search docs.minisplade "how do vaccines work"
  minisplade search docs.minisplade -k 100 --queries questions.jsonl > hits.jsonl""",
    )
    command.add_argument("index", help="an index file that `minisplade index` wrote")
    command.add_argument("query", nargs="*", help="the question; several words need no quotes")
    command.add_argument("--queries", metavar="FILE", help="one query a record; see `index INPUT`")
    command.add_argument("-k", type=_positive, default=10, help="hits for each query (10)")
    command.add_argument("--json", action="store_true", help="JSON lines even on a terminal")
    _add_input_options(command)
    _add_model_option(command, "the one that the index was made with")

    command = _command(
        commands,
        "models",
        models,
        "list known models, or fetch one",
        """\
  minisplade models
  minisplade models pull splade-tiny
  minisplade models pull owner/name     any SPLADE model on the Hugging Face Hub""",
    )
    command.add_argument("action", nargs="?", choices=["list", "pull"], default="list")
    command.add_argument("name", nargs="?", help="a known name or a Hub id, for pull")
    command.add_argument("--json", action="store_true", help="JSON lines even on a terminal")

    command = _command(
        commands,
        "demo",
        demo,
        "ask the documentation of Python's standard library",
        """\
  minisplade demo                              builds the index once, answers a few questions
  minisplade demo "how do I compress a file"   answers yours""",
    )
    command.add_argument("question", nargs="*", help="your question")
    command.add_argument("-k", type=_positive, default=5, help="hits for each question (5)")
    command.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    return parser


def encode(options: argparse.Namespace) -> None:
    """Write the vectors of all input texts, as JSON lines or to a file."""
    from minisplade.vectors import concatenate

    encoder = _load_encoder(options.model)
    prompt = encoder.query_prompt if options.query else encoder.document_prompt
    skipped = _Skipped(options)
    keys: deque[str] = deque()
    texts = _remember_keys(_records(options, options.input, skipped), keys)
    blocks = encoder.encode_stream(texts, prompt=prompt, max_active_dims=options.top)
    if options.output:
        vectors = concatenate(list(_progress(blocks)), encoder.get_embedding_dimension())
        vectors.save(options.output)
        print(f"{options.output}: {vectors!r}", file=sys.stderr)
    else:
        for vector in chain.from_iterable(blocks):
            terms = dict(encoder.decode(vector))
            _print_json({"_id": keys.popleft(), "terms": _rounded(terms)})
    skipped.report()


def index(options: argparse.Namespace) -> None:
    """Encode documents and write an index file."""
    from minisplade.index import Index
    from minisplade.vectors import concatenate

    skipped = _Skipped(options)
    keys: deque[str] = deque()
    texts: list[str] = []
    encoder = _load_encoder(options.model)
    inputs = _remember_keys(_records(options, options.input, skipped), keys, texts)
    vectors = list(_progress(encoder.encode_stream(inputs)))
    if not vectors:
        raise InputError(f"{options.input} has no documents")
    kept = None if options.no_texts else texts
    made = Index.from_vectors(concatenate(vectors), list(keys), kept, encoder)
    made.save(options.output)
    skipped.report()
    print(f"{options.output}: {made!r}", file=sys.stderr)


def search(options: argparse.Namespace) -> None:
    """Search an index with one query, or with each of a file."""
    from minisplade.index import Index
    from minisplade.records import Record

    if bool(options.query) == bool(options.queries):
        raise InputError('give either a query, such as search INDEX "my question", or --queries')
    loaded = Index.load(options.index)
    loaded.encoder = encoder = _load_encoder(options.model or loaded.encoder_name)
    skipped = _Skipped(options)
    queries: Iterable[Record]
    if options.queries:
        queries = _records(options, options.queries, skipped)
    else:
        queries = [Record("1", " ".join(options.query))]
    for query in queries:
        _answer(loaded, encoder, query, options.k, _wants_json(options.json))
    skipped.report()


def models(options: argparse.Namespace) -> None:
    """List the known models and whether they are on this machine, or fetch one."""
    from minisplade.hub import KNOWN_MODELS, find_model, is_cached

    if options.action == "pull":
        if not options.name:
            raise InputError(f"pull needs a name; known models: {', '.join(KNOWN_MODELS)}")
        print(find_model(options.name))
        return
    for model in KNOWN_MODELS.values():
        cached = is_cached(model)
        if _wants_json(options.json):
            row = {"name": model.name, "repo_id": model.repo_id, "cached": cached}
            _print_json({**row, "summary": model.summary})
        else:
            print(f"{model.name:20} {'cached' if cached else '-':7} {model.summary}")


def demo(options: argparse.Namespace) -> None:
    """Answer questions from the documentation of the standard library."""
    from minisplade.demo import QUESTIONS, build_demo_index, load_demo_index
    from minisplade.hub import DEFAULT_MODEL, KNOWN_MODELS, is_cached
    from minisplade.records import Record

    if not is_cached(KNOWN_MODELS[DEFAULT_MODEL]):
        _say(f"Fetching the model {DEFAULT_MODEL} (18 MB, once) ...")
    encoder = _load_encoder(None)
    ready = load_demo_index(encoder)
    if ready is None:
        version = f"Python {sys.version.split()[0]}"
        _say(f"Indexing the documentation of {version}'s standard library (once) ...")
        ready = build_demo_index(encoder, show_progress_bar=sys.stderr.isatty())
        _say(f"Done: {len(ready)} docstrings, {ready.postings.doc_ids.size} postings.")
    questions = [" ".join(options.question)] if options.question else QUESTIONS
    for number, question in enumerate(questions, start=1):
        _answer(ready, encoder, Record(str(number), question), options.k, options.json)


def _answer(
    index: "Index", encoder: "SparseEncoder", query: "Record", k: int, as_json: bool
) -> None:
    """Search for one query and print its hits."""
    vector = encoder.encode_query(query.text)
    hits = index.search(vector, k)
    show = _print_hits_as_json if as_json else _print_hits_as_table
    show(index, encoder, query, vector, hits)


def _print_hits_as_json(
    index: "Index", encoder: "SparseEncoder", query: "Record", vector: "SparseVector", hits: "Hits"
) -> None:
    for rank, hit in enumerate(hits, start=1):
        row: dict[str, Any] = {"query_id": query.key, "query": query.text, "rank": rank}
        row |= {"key": hit.key, "score": round(hit.score, 4)}
        row["terms"] = _rounded(_matching_terms(index, encoder, vector, hit.doc_id))
        if hit.text is not None:
            row["text"] = hit.text
        _print_json(row)


def _print_hits_as_table(
    index: "Index",
    encoder: "SparseEncoder",
    query: "Record",
    vector: "SparseVector",
    hits: "Hits",
) -> None:
    print(f"\n{_bold(query.text)}")
    if not hits:
        print("  no document shares a term with this query")
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank:3}  {hit.score:7.3f}  {_bold(hit.key)}")
        if hit.text is not None:
            print(f"              {_snippet(hit.text)}")
        terms = _matching_terms(index, encoder, vector, hit.doc_id)
        shown = [f"{term} {share:.1f}" for term, share in list(terms.items())[:SHOWN_TERMS]]
        more = f" and {len(terms) - SHOWN_TERMS} more" if len(terms) > SHOWN_TERMS else ""
        print(f"              = {' + '.join(shown)}{more}")


def _matching_terms(
    index: "Index", encoder: "SparseEncoder", vector: "SparseVector", doc_id: int
) -> dict[str, float]:
    """Return what each common term adds to a score, by its string, largest first."""
    shares = index.matching_terms(vector, doc_id)
    return {encoder.terms[term_id]: share for term_id, share in shares}


class _Skipped:
    """Counts the bad lines that --skip-bad passes over, and names the first few."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.count = 0
        self.on_bad_line: Callable[[InputError], None] | None = None
        if options.skip_bad:
            self.on_bad_line = self._skip

    def _skip(self, error: InputError) -> None:
        self.count += 1
        if self.count <= 5:
            _say(f"skipped: {error}")

    def report(self) -> None:
        if self.count:
            _say(f"{self.count} bad lines were skipped")


def _records(options: argparse.Namespace, path: str, skipped: _Skipped) -> Iterator["Record"]:
    """Read documents or queries as the options say."""
    from minisplade.records import Fields, read_records

    default = Fields()
    fields = Fields(
        key=(options.key_field,) if options.key_field else default.key,
        text=tuple(options.text_fields.split(",")) if options.text_fields else default.text,
    )
    return read_records(path, fields, skipped.on_bad_line)


def _remember_keys(
    records: Iterable["Record"], keys: deque[str], texts: list[str] | None = None
) -> Iterator[str]:
    """Pass on the texts of records, noting their keys, and the texts if asked, on the way."""
    for record in records:
        keys.append(record.key)
        if texts is not None:
            texts.append(record.text)
        yield record.text


def _load_encoder(name: str | None) -> "SparseEncoder":
    from minisplade.encoder import SparseEncoder

    return SparseEncoder(name)


def _progress(blocks: Iterable["SparseVectors"]) -> Iterator["SparseVectors"]:
    """Show on a terminal how many texts are encoded."""
    from tqdm import tqdm

    with tqdm(unit=" texts", desc="Encoding", disable=not sys.stderr.isatty()) as bar:
        for block in blocks:
            bar.update(len(block))
            yield block


def _command(
    commands: Any, name: str, run: Callable[..., None], summary: str, examples: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("-v", "--verbose", action="count", default=0, help="say more; -vv: all")
    return command


def _add_input_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("input fields")
    group.add_argument("--key-field", metavar="NAME", help="field with the key (_id or id)")
    group.add_argument("--text-fields", metavar="A,B", help="fields joined as text (title,text)")
    group.add_argument(
        "--skip-bad", action="store_true", help="count bad lines instead of stopping"
    )


def _add_model_option(command: argparse.ArgumentParser, default: str = "splade-tiny") -> None:
    command.add_argument(
        "-m", "--model", help=f"a folder, a known name or a Hub id (default: {default})"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_positive.__name__ = "whole number above 0"  # argparse shows it in its error


def _wants_json(chosen: bool) -> bool:
    return chosen or not sys.stdout.isatty()


def _print_json(row: dict[str, Any]) -> None:
    print(json.dumps(row, ensure_ascii=False))


def _rounded(terms: dict[str, float]) -> dict[str, float]:
    """Shorten weights to what float32 tells apart in practice."""
    return {term: round(weight, 4) for term, weight in terms.items()}


def _snippet(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET else f"{line[: SNIPPET - 1].rstrip()}…"


def _bold(text: str) -> str:
    plain = "NO_COLOR" in os.environ or not sys.stdout.isatty()
    return text if plain else f"\033[1m{text}\033[0m"


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
