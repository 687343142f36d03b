"""Writing to a durable index: one transaction, from its first change to its commit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import numpy as np

from minisplade.errors import IndexLockedError, InputError
from minisplade.index.documents import Row, checked_metadata, is_text
from minisplade.index.filters import Condition, matching
from minisplade.index.lock import Lock
from minisplade.index.manifest import EncoderEntry
from minisplade.index.merging import live_vectors
from minisplade.index.postings import build_postings
from minisplade.index.publishing import (
    LOCK_NAME,
    collect,
    drafts_of,
    new_draft,
    publish_drafts,
    write_segment,
)
from minisplade.index.snapshot import Snapshot, open_snapshot
from minisplade.vectors import SparseVector, SparseVectors, concatenate

MOST_POSTINGS = 1 << 25
MOST_CHARACTERS = 1 << 28
"""What is held in memory until it becomes a segment, of about 200 MB for the one and the other."""


@dataclass(slots=True)
class Buffer:
    """Documents that are not in a segment yet; of those with one key, the last one counts."""

    rows: list[Row] = field(default_factory=list)
    blocks: list[SparseVectors] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)  # where in rows each key is
    num_postings: int = 0
    num_characters: int = 0

    def add(self, rows: Sequence[Row], vectors: SparseVectors) -> None:
        """Take documents that have been checked."""
        self.places.update((row[0], i) for i, row in enumerate(rows, start=len(self.rows)))
        self.num_characters += sum(len(part) for row in rows for part in row if part)
        self.rows += rows
        self.blocks.append(vectors)
        self.num_postings += vectors.weights.size

    @property
    def is_full(self) -> bool:
        """Whether it had better become a segment."""
        return self.num_postings >= MOST_POSTINGS or self.num_characters >= MOST_CHARACTERS

    def latest(self) -> tuple[list[Row], SparseVectors]:
        """Return the documents that count, in the order in which they came."""
        vectors = concatenate(self.blocks)
        if len(self.places) == len(self.rows):
            return self.rows, vectors
        kept = sorted(self.places.values())
        return [self.rows[i] for i in kept], vectors[kept]


class Writer:
    """All that one transaction changes; it holds the lock from the first change to the last."""

    def __init__(self, folder: str, before: Snapshot, encoder: EncoderEntry | None) -> None:
        """Take the lock and start from the newest generation.

        encoder: what an index remembers that does not know its encoder yet.

        Raises IndexLockedError, IndexFormatError or IndexWriteError.
        """
        self.folder = folder
        self.lock = Lock(os.path.join(folder, LOCK_NAME))
        self.lock.acquire()
        try:
            self.snapshot = open_snapshot(folder, before)
            collect(folder)
        except BaseException:
            self.lock.release()
            raise
        assert self.snapshot.manifest is not None
        self.manifest = self.snapshot.manifest
        if encoder is not None and self.manifest.encoder == EncoderEntry():
            self.manifest = replace(self.manifest, encoder=encoder)
        self.drafts = drafts_of(self.snapshot)
        self.buffer = Buffer()
        self.is_changed = False

    def add(self, rows: Sequence[Row], vectors: SparseVectors) -> None:
        """Add documents, in place of those that have their keys."""
        if self.manifest.num_terms not in (None, vectors.num_terms):
            raise InputError(
                f"vectors have {vectors.num_terms} terms, this index has "
                f"{self.manifest.num_terms}; encode with the model that the index was made with"
            )
        self.is_changed = True
        self.manifest = replace(self.manifest, num_terms=vectors.num_terms)
        self.buffer.add(rows, vectors)
        if self.buffer.is_full:
            self.flush()

    def delete(self, keys: Iterable[str]) -> int:
        """Delete the documents that have these keys; returns how many there were."""
        keys = list(dict.fromkeys(keys))
        buffered = {key for key in keys if self.buffer.places.pop(key, None) is not None}
        count = len(buffered | self._delete_stored(keys))
        self.is_changed |= count > 0
        return count

    def delete_matching(self, condition: Condition) -> int:
        """Delete the documents whose metadata meets a condition; returns how many there were."""
        self.flush()
        count = 0
        for draft in self.drafts:
            found = matching(condition, draft.contents.documents, draft.entry.num_docs)
            found &= ~draft.deleted
            draft.deleted |= found
            count += int(np.count_nonzero(found))
        self.is_changed |= count > 0
        return count

    def flush(self) -> None:
        """Make the buffer a segment, in files that no manifest lists; raises IndexWriteError."""
        if self.buffer.places:
            rows, vectors = self.buffer.latest()
            self._delete_stored([row[0] for row in rows])
            postings = build_postings(vectors, self.manifest.compact)
            entry = write_segment(self.folder, postings, rows)
            self.drafts.append(new_draft(self.folder, entry))
        self.buffer = Buffer()

    def stored(self, keys: Sequence[str], with_vectors: bool) -> tuple[list[Row], SparseVectors]:
        """Return the documents that have these keys, in their order, and perhaps their vectors.

        Raises InputError where a key is not there.
        """
        self.flush()
        rows: dict[str, Row] = {}
        vectors: dict[str, SparseVector] = {}
        for draft in self.drafts:
            found = draft.contents.documents.find(keys)
            places = sorted(place for place in found.values() if not draft.deleted[place])
            own = list(draft.contents.documents.rows(places))
            rows.update((row[0], row) for row in own)
            if with_vectors and places:
                mask = np.zeros(draft.entry.num_docs, dtype=np.bool_)
                mask[places] = True
                blocks = live_vectors(draft.contents.postings, mask)
                one_by_one = (vector for block in blocks for vector in block)
                vectors.update((row[0], v) for row, v in zip(own, one_by_one, strict=True))
        for key in keys:
            if key not in rows:
                raise InputError(f"{key!r} is not in this index, so it cannot be updated")
        num_terms = self.manifest.num_terms or 0
        chosen = [vectors[key] for key in keys] if with_vectors else []
        return [rows[key] for key in keys], SparseVectors.from_rows(chosen, num_terms)

    def commit(self) -> Snapshot:
        """Make all changes durable, at once, and let the lock go; returns the new generation.

        Raises IndexWriteError where they cannot be written; all of them are undone then.
        """
        try:
            if not self.lock.is_held:
                raise IndexLockedError("this process is a fork of the one that made the changes")
            if self.is_changed:
                self.flush()
                self.snapshot = publish_drafts(self.folder, self.manifest, self.drafts)
        except BaseException:
            self.rollback()
            raise
        self.lock.release()
        return self.snapshot

    def rollback(self) -> None:
        """Forget all changes, remove their files, and let the lock go."""
        if self.lock.is_held:
            collect(self.folder)
        self.lock.release()

    def _delete_stored(self, keys: Sequence[str]) -> set[str]:
        """Mark the documents in segments that have these keys; returns the keys of those marked."""
        marked = set()
        for draft in self.drafts:
            for key, place in draft.contents.documents.find(keys).items():
                if not draft.deleted[place]:
                    draft.deleted[place] = True
                    marked.add(key)
        return marked


def checked_rows(
    keys: Sequence[str],
    texts: Sequence[str | None] | None,
    metadata: Sequence[Mapping[str, Any] | None] | None,
) -> list[Row]:
    """Put together what belongs to each document; raises InputError for what cannot be stored."""
    for name, values in (("keys", keys), ("texts", texts), ("metadata", metadata)):
        if isinstance(values, str | Mapping):
            raise InputError(
                f"{name} are the single {values!r:.80}; expected one for each document"
            )
        if values is not None and not isinstance(values, Sized):
            raise InputError(f"{name} are {values!r:.80}; expected a list, one for each document")
        if values is not None and len(values) != len(keys):
            raise InputError(f"{len(values)} {name} for {len(keys)} documents")
    for place, key in enumerate(keys):
        if not is_text(key):
            raise InputError(f"key {place} is {key!r:.80}; expected a string of Unicode text")
    for key, text in zip(keys, () if texts is None else texts):
        if text is not None and not is_text(text):
            raise InputError(f"text of {key!r} is {text!r:.80}; expected a string of Unicode text")
    dumped = map(checked_metadata, metadata, keys) if metadata is not None else repeat(None)
    return list(zip(map(str, keys), repeat(None) if texts is None else texts, dumped))
