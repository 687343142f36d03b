"""What each command of the command line does, given its parsed arguments."""

import json
import logging
import os
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

from minisplade.display import (
    print_explanation,
    print_hits,
    print_json,
    print_match,
    print_table,
    print_trace,
    progress,
    rounded,
    say,
    wants_json,
    with_progress,
)
from minisplade.errors import InputError, ModelNotFoundError

if TYPE_CHECKING:
    from minisplade.encoder import SparseEncoder
    from minisplade.explain import Explanation, MatchExplanation
    from minisplade.index import Index
    from minisplade.layout import Task
    from minisplade.records import Record
    from minisplade.trace import Trace

SHOWN_BAD_LINES = 5

logger = logging.getLogger("minisplade")


def encode(options: Namespace) -> None:
    """Write the vectors of all input texts, as JSON lines or to a file."""
    from minisplade.vectors import concatenate

    _check_output(options.input, options.output)
    encoder = load_encoder(options.model)
    skipped = Skipped(options.skip_bad)
    keys: deque[str] = deque()
    texts = _remember_keys(read_input(options, options.input, skipped), keys)
    logger.info("encoding %s with %r", options.input, encoder)
    task: Task = "query" if options.query else "document"
    blocks = encoder.encode_stream(texts, max_active_dims=options.top, task=task)
    if options.output:
        vectors = concatenate(list(with_progress(blocks)), encoder.get_embedding_dimension())
        vectors.save(options.output)
        say(f"{options.output}: {vectors!r}")
    else:
        for vector in chain.from_iterable(blocks):
            terms = dict(encoder.decode(vector))
            print_json({"_id": keys.popleft(), "terms": rounded(terms)})
    skipped.report()


def index(options: Namespace) -> None:
    """Encode documents and write an index file."""
    from minisplade.index import Index

    _check_output(options.input, options.output)
    skipped = Skipped(options.skip_bad)
    # All are read first: a bad line or a repeated key must not show up after hours of encoding.
    records = list(read_input(options, options.input, skipped, distinct_keys=True))
    skipped.report()
    if not records:
        raise InputError(f"{options.input} has no documents")
    texts = [record.text for record in records]
    encoder = load_encoder(options.model)
    logger.info("encoding %d documents with %r", len(texts), encoder)
    blocks = with_progress(encoder.encode_stream(texts), len(texts))
    keys = [record.key for record in records]
    kept = None if options.no_texts else texts
    made = Index.from_stream(blocks, keys, kept, encoder, compact=options.compact)
    made.save(options.output)
    say(f"{options.output}: {made!r}")


def search(options: Namespace) -> None:
    """Search an index with one query, or with each of a file."""
    from minisplade.index import Index
    from minisplade.records import Record

    question = " ".join(options.query).strip()
    if bool(question) == bool(options.queries):
        options.parser.error(
            'give either a query, such as search INDEX "my question", or --queries'
        )
    in_folder = os.path.isdir(options.index)
    loaded = Index.open(options.index) if in_folder else Index.load(options.index)
    where = parse_condition(options.where) if options.where else None
    encoder = encoder_of(loaded, options)
    skipped = Skipped(options.skip_bad)
    queries: Iterable[Record] = [Record("1", question)]
    if options.queries:
        queries = read_input(options, options.queries, skipped)
    for query in queries:
        _answer(loaded, encoder, query, options.k, wants_json(options.json), where)
    skipped.report()


def explain(options: Namespace) -> None:
    """Show which words the terms of a text come from, or what makes the score of a document."""
    text = " ".join(options.text)
    if bool(text.strip()) == bool(options.query or options.document):
        options.parser.error(
            'give either a text, such as explain "my text", or --query, --document'
        )
    _check_page(options.html)
    encoder = load_encoder(options.model)
    if options.query and options.document:
        found = encoder.explain_match(options.query, options.document)
        if not _written(options.html, found):
            print_match(found, options.top, wants_json(options.json))
        return
    prompt = encoder.query_prompt if options.query else encoder.document_prompt
    task: Task = "query" if options.query else "document"
    explained = options.query or options.document or text
    explanation = encoder.explain(explained, prompt=prompt, task=task)
    if not _written(options.html, explanation):
        print_explanation(explanation, options.top, wants_json(options.json))


def trace(options: Namespace) -> None:
    """Walk through all that a model computes for a text."""
    text = " ".join(options.text)
    if not text.strip():
        options.parser.error('give a text, such as trace "my text"')
    _check_page(options.html)
    encoder = load_encoder(options.model)
    traced = encoder.trace(
        text, terms=options.terms, prompt=encoder.document_prompt, task="document"
    )
    if not _written(options.html, traced):
        print_trace(traced, options.json)


def demo(options: Namespace) -> None:
    """Answer questions from the documentation of the standard library."""
    from minisplade.demo import QUESTIONS, build_demo_index, load_demo_index
    from minisplade.hub import DEFAULT_MODEL, KNOWN_MODELS, is_cached
    from minisplade.records import Record

    if not is_cached(KNOWN_MODELS[DEFAULT_MODEL]):
        say(f"Fetching the model {DEFAULT_MODEL} (18 MB, once) ...")
    encoder = load_encoder(None)
    ready = load_demo_index(encoder)
    if ready is None:
        version = f"Python {sys.version.split()[0]}"
        say(f"Indexing the documentation of {version}'s standard library (once) ...")
        ready = build_demo_index(encoder, show_progress_bar=sys.stderr.isatty())
        say(f"Done: {len(ready)} docstrings, {ready.postings.num_postings} postings.")
    question = " ".join(options.question).strip()
    for number, text in enumerate([question] if question else QUESTIONS, start=1):
        _answer(ready, encoder, Record(str(number), text), options.k, options.json)


def evaluate(options: Namespace) -> None:
    """Measure a model on test collections, beside BM25 and fused with it."""
    from minisplade.evaluation import evaluate, load_collection, read_run, write_report
    from minisplade.evaluation.report import results, system_table
    from minisplade.reranker import CrossEncoder

    if options.output:
        os.makedirs(options.output, exist_ok=True)
        _check_output("", os.path.join(options.output, "report.html"))
    collections = [load_collection(path, options.split) for path in options.data]
    runs = {name: read_run(path) for name, path in options.run_file}
    encoder = load_encoder(options.model)
    count = sum(len(own.documents) + len(own.queries) for own in collections)
    with progress(count) as bar:
        found = evaluate(
            encoder,
            collections,
            systems=options.systems,
            reranker=None if options.rerank is None else CrossEncoder(options.rerank),
            runs=runs,
            max_seq_length=options.max_seq_length,
            depth=options.depth,
            cache=options.cache,
            with_tradeoffs=options.output is not None,
            on_progress=bar.update,
        )
    if options.output:
        say(f"report: {write_report(found, options.output, options.command_line)}")
    if wants_json(options.json):
        for row in results(found):
            print_json(row)
        return
    for comparison in found.comparisons:
        print_table(comparison.collection.name, system_table(comparison))


def _answer(
    index: "Index",
    encoder: "SparseEncoder",
    query: "Record",
    k: int,
    as_json: bool,
    where: dict[str, Any] | None = None,
) -> None:
    """Search for one query and print its hits."""
    vector = encoder.encode_query(query.text)
    hits = index.search(vector, k, filter=where)
    print_hits(index, encoder, query, vector, hits, as_json)


def parse_condition(text: str) -> dict[str, Any]:
    """Read a condition on metadata that is given as JSON."""
    try:
        condition = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'--where is not JSON: {error}; expected fields, such as {{"year": {{">=": 1990}}}}'
        ) from None
    if not isinstance(condition, dict):
        raise InputError(f'--where is {text[:80]}; expected fields, such as {{"year": 1990}}')
    return condition


class Skipped:
    """Counts the bad lines that --skip-bad passes over, and names the first few."""

    def __init__(self, allowed: bool) -> None:
        self.count = 0
        self.on_bad_line: Callable[[InputError], None] | None = self._skip if allowed else None

    def _skip(self, error: InputError) -> None:
        self.count += 1
        if self.count <= SHOWN_BAD_LINES:
            say(f"skipped: {error}")

    def report(self) -> None:
        """Say how many there were."""
        if self.count:
            say(f"{self.count} bad line{'s' if self.count > 1 else ''} skipped")


def read_input(
    options: Namespace, path: str, skipped: Skipped, distinct_keys: bool = False
) -> Iterator["Record"]:
    """Read documents or queries as the options say."""
    from minisplade.records import Fields, read_records

    default = Fields()
    fields = Fields(
        key=(options.key_field,) if options.key_field else default.key,
        text=tuple(options.text_fields) if options.text_fields else default.text,
        needs_key=bool(options.key_field),
        metadata=tuple(getattr(options, "metadata_fields", None) or ()),
    )
    if path == "-" and sys.stdin is not None and sys.stdin.isatty():
        say("Reading from the terminal; Ctrl-D on a line of its own ends the input.")
    return read_records(path, fields, skipped.on_bad_line, distinct_keys)


def _remember_keys(records: Iterable["Record"], keys: deque[str]) -> Iterator[str]:
    """Pass on the texts of records, noting their keys on the way."""
    for record in records:
        keys.append(record.key)
        yield record.text


def _check_output(source: str, output: str | None) -> None:
    """Raise InputError where the result could not be written, before the work of making it."""
    from minisplade.files import check_target

    if output is None:
        return
    check_target(output)
    if os.path.exists(source) and os.path.exists(output) and os.path.samefile(source, output):
        raise InputError(f"{output} is the input too; give another name for the output")


def _check_page(path: str | None) -> None:
    """Raise InputError where a page could not be written, before the work of making it."""
    from minisplade.files import check_target

    if path is not None:
        check_target(path)


def _written(path: str | None, shown: "Explanation | MatchExplanation | Trace") -> bool:
    """Write a page, if one is asked for, and tell whether it was."""
    from minisplade.pages import write_page

    if path is None:
        return False
    write_page(path, shown.to_html())
    say(f"{path}: open it in a browser")
    return True


def load_encoder(name: str | None) -> "SparseEncoder":
    """Load a model; a folder by its full path, so that an index can tell where it is."""
    from minisplade.encoder import SparseEncoder
    from minisplade.hub import is_model_folder

    return SparseEncoder(os.path.abspath(name) if name and is_model_folder(name) else name)


def encoder_of(index: "Index", options: Namespace) -> "SparseEncoder":
    """Load the model that an index was made with, or the one that is asked for."""
    if options.model is None:
        try:
            return load_encoder(index.encoder_name)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                f"{options.index} was made with a model that is not here (--model may tell where "
                f"it is now): {error}"
            ) from error
    encoder = load_encoder(options.model)
    if index.encoder_name not in (None, encoder.name):
        logger.warning(
            "%s was made with %s; scores with %s mean something only if it is the same model",
            options.index,
            index.encoder_name,
            encoder.name,
        )
    return encoder
