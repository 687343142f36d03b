"""Index files of other kinds: everything in one safetensors file, and JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.errors import IndexFormatError, InputError
from minisplade.files import read_arrays, replacing, write_arrays
from minisplade.index.documents import HeldDocuments, document_of
from minisplade.index.merging import live_vectors
from minisplade.index.postings import Postings
from minisplade.index.snapshot import HeldContents, Segment, Snapshot
from minisplade.index.storage import FORMAT, FORMAT_VERSION, postings_from, stored
from minisplade.index.stream import build_from_stream
from minisplade.vectors import SparseVectors

BATCH = 1000
"""Documents that are imported at a time."""


def held_snapshot(
    postings: Postings, keys: Sequence[str], texts: Sequence[str] | None = None
) -> Snapshot:
    """Put documents in memory together; raises InputError unless there is one key for each."""
    check_documents(keys, texts, postings.num_docs)
    contents = HeldContents(postings, HeldDocuments(keys, texts))
    return Snapshot([Segment(contents, postings.num_docs)])


def read_file(path: str | os.PathLike[str]) -> tuple[Snapshot, str | None]:
    """Map a file that write_file wrote; returns what is in it and the name of its encoder.

    Raises IndexFormatError.
    """
    arrays, metadata = read_arrays(path, FORMAT, FORMAT_VERSION)
    try:
        postings = postings_from(arrays, metadata)
        keys = _split_strings(arrays["keys"], arrays["key_offsets"])
        texts = None
        if "texts" in arrays:
            texts = _split_strings(arrays["texts"], arrays["text_offsets"])
        return held_snapshot(postings, keys, texts), metadata.get("encoder")
    except (KeyError, ValueError, OverflowError) as error:
        raise IndexFormatError(f"{path} is damaged: {error}") from error


def write_file(path: str | os.PathLike[str], snapshot: Snapshot, encoder_name: str | None) -> None:
    """Write all documents to one file, without metadata, or leave what was there before."""
    arrays, metadata = stored(one_postings(snapshot))
    rows = list(snapshot.live_rows())
    arrays["keys"], arrays["key_offsets"] = _join_strings([key for key, _, _ in rows])
    if any(text is not None for _, text, _ in rows):
        texts = [text or "" for _, text, _ in rows]
        arrays["texts"], arrays["text_offsets"] = _join_strings(texts)
    if encoder_name:
        metadata["encoder"] = encoder_name
    write_arrays(path, arrays, FORMAT, FORMAT_VERSION, metadata)


def one_postings(snapshot: Snapshot) -> Postings:
    """Return the postings of all documents that are not deleted, in the form of the first ones.

    Raises InputError for an index that never had documents, and so has no vocabulary.
    """
    segments = snapshot.segments
    if not segments:
        raise InputError("this index has no documents to be written")
    first = segments[0].contents.postings
    if len(segments) == 1 and segments[0].num_live == segments[0].num_docs:
        return first
    return build_from_stream(
        (b for s in segments for b in live_vectors(s.contents.postings, s.live_mask)),
        first.is_compact,
    )


def write_json_lines(path: str | os.PathLike[str], snapshot: Snapshot) -> int:
    """Write each document as a line; returns how many there are."""
    count = 0
    with replacing(path) as file:
        for segment in snapshot.segments:
            blocks = live_vectors(segment.contents.postings, segment.live_mask)
            vectors = (vector for block in blocks for vector in block)
            for row, vector in zip(segment.live_rows(), vectors, strict=True):
                document = document_of(row)
                line: dict[str, Any] = {"_id": document.key}
                if document.text is not None:
                    line["text"] = document.text
                if document.metadata is not None:
                    line["metadata"] = document.metadata
                line["term_ids"] = vector.term_ids.tolist()
                line["weights"] = vector.weights.tolist()
                line["num_terms"] = vector.num_terms
                file.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
                count += 1
    return count


def read_json_lines(
    path: str | os.PathLike[str],
) -> Iterator[tuple[list[str], list[Any], list[Any], SparseVectors]]:
    """Yield the keys, texts, metadata and vectors that write_json_lines wrote, in batches.

    Raises InputError, naming file and line.
    """
    with open(path, encoding="utf-8") as file:
        numbered = enumerate(file, start=1)
        while batch := list(islice(numbered, BATCH)):
            keys, texts, metadata, vectors = [], [], [], []
            for number, line in batch:
                try:
                    row = json.loads(line)
                    keys.append(row["_id"])
                    texts.append(row.get("text"))
                    metadata.append(row.get("metadata"))
                    vectors.append((row["term_ids"], row["weights"], row["num_terms"]))
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise InputError(
                        f"{path}, line {number}: {error!r}; expected what export wrote"
                    ) from error
            yield keys, texts, metadata, _vectors_of(vectors, f"{path}, line {batch[0][0]} on")


def _vectors_of(rows: list[tuple[Any, Any, Any]], place: str) -> SparseVectors:
    try:
        ids = [np.array(row[0], dtype=np.int32) for row in rows]
        vectors = SparseVectors(
            offsets=np.concatenate([[0], np.cumsum([own.size for own in ids], dtype=np.int64)]),
            term_ids=np.concatenate(ids),
            weights=np.concatenate([np.array(row[1], dtype=np.float32) for row in rows]),
            num_terms=int(rows[0][2]),
        )
        return vectors.check()
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place}: {error}") from error


def check_documents(keys: Sequence[str], texts: Sequence[str] | None, num_docs: int) -> None:
    """Raise InputError unless there is one distinct key, and one text if any, per document."""
    if len(keys) != num_docs:
        raise InputError(f"{len(keys)} keys for {num_docs} documents")
    if texts is not None and len(texts) != num_docs:
        raise InputError(f"{len(texts)} texts for {num_docs} documents")
    seen: set[str] = set()
    for place, key in enumerate(keys):
        if not isinstance(key, str):
            raise InputError(f"key {place} is {type(key).__name__}; expected str")
        if key in seen:
            raise InputError(f"key {key!r} stands for two documents; keys must differ")
        seen.add(key)


def _join_strings(strings: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Store strings as UTF-8 bytes and where each starts, int64 (N + 1,)."""
    encoded = [string.encode() for string in strings]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(string) for string in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def _split_strings(joined: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[str]:
    """Undo _join_strings."""
    content = joined.tobytes()
    places = offsets.tolist()
    return [content[start:end].decode() for start, end in zip(places, islice(places, 1, None))]
