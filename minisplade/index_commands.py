"""What the commands for an index in a folder do, given their parsed arguments."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice

from minisplade.commands import (
    Skipped,
    encoder_of,
    load_encoder,
    parse_condition,
    read_input,
)
from minisplade.display import print_json, print_line, say, wants_json, with_progress
from minisplade.errors import InputError
from minisplade.files import check_target


def add(options: Namespace) -> None:
    """Encode documents and add them, or put them in place of those with the same keys."""
    from minisplade.index import Index

    if not os.path.exists(os.path.join(options.index, "manifest")):
        Index.create(options.index, load_encoder(options.model), compact=options.compact)
    _encode_into(options, lambda index, *documents: index.add(*documents[:3], vectors=documents[3]))


def update(options: Namespace) -> None:
    """Encode documents and put them in place of those with the same keys, which must be there."""
    from minisplade.index import Index

    keys = {record.key for record in read_input(options, options.input, Skipped(options.skip_bad))}
    index = Index.open(options.index)
    for key in sorted(keys):  # before hours of encoding
        if key not in index:
            raise InputError(f"{key!r} is not in {options.index}; `index add` adds documents")
    _encode_into(
        options,
        lambda index, keys, texts, metadata, vectors: index.update(
            keys, texts, metadata if any(metadata) else None, vectors=vectors
        ),
    )


def _encode_into(options: Namespace, write: Callable[..., None]) -> None:
    """Encode all documents of the input and write them, with a commit after every so many."""
    from minisplade.index import Index

    skipped = Skipped(options.skip_bad)
    # All are read first: a bad line or a repeated key must not show up after hours of encoding.
    records = list(read_input(options, options.input, skipped, distinct_keys=True))
    skipped.report()
    encoder = encoder_of(Index.open(options.index), options)
    blocks = encoder.encode_stream(record.text for record in records)
    waiting = iter(records)
    with Index.open(options.index, encoder) as index:
        written = 0
        for vectors in with_progress(blocks, len(records)):
            own = list(islice(waiting, len(vectors)))
            texts = None if options.no_texts else [record.text for record in own]
            metadata = [record.metadata for record in own]
            write(index, [record.key for record in own], texts, metadata, vectors)
            written += len(own)
            if written >= options.commit_every:
                index.commit()
                written = 0
        index.commit()
        say(f"{options.index}: {index!r}")


def delete(options: Namespace) -> None:
    """Delete documents by key or by a condition."""
    from minisplade.index import Index

    if bool(options.keys) == bool(options.where):
        options.parser.error("give either keys or --where, to say what to delete")
    with Index.open(options.index) as index:
        count = index.delete(parse_condition(options.where) if options.where else options.keys)
    say(f"{options.index}: {count} document{'' if count == 1 else 's'} deleted")


def stats(options: Namespace) -> None:
    """Show the sizes of an index."""
    from minisplade.index import Index

    rows = asdict(Index.open(options.index).stats())
    if wants_json(options.json):
        print_json(rows)
    else:
        for name, value in rows.items():
            print_line(f"{name:14} {value}")


def verify(options: Namespace) -> None:
    """Check the files of an index."""
    from minisplade.index import Index

    size = Index.open(options.index).verify(full=options.full)
    checked = f"{size} bytes read" if options.full else "sizes checked; --full reads everything"
    say(f"{options.index}: no damage found, {checked}")


def merge(options: Namespace) -> None:
    """Make one segment of many."""
    from minisplade.index import Index

    index = Index.open(options.index)
    index.compact() if options.all else index.merge()
    say(f"{options.index}: {index.stats().num_segments} segments")


def export(options: Namespace) -> None:
    """Write all documents as JSON lines."""
    from minisplade.index import Index

    check_target(options.output)
    count = Index.open(options.index).export_jsonl(options.output)
    say(f"{options.output}: {count} documents")


def import_(options: Namespace) -> None:
    """Add what export wrote."""
    from minisplade.index import Index

    if not os.path.exists(os.path.join(options.index, "manifest")):
        Index.create(options.index)
    with Index.open(options.index) as index:
        count = index.import_jsonl(options.input)
    say(f"{options.index}: {count} documents added")
