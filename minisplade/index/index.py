"""Index: documents under the user's keys, searched exactly, held in memory or kept in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock, Thread
from types import TracebackType
from typing import Any

from minisplade.errors import IndexLockedError, InputError, MiniSpladeError
from minisplade.index import exchange
from minisplade.index.encoders import Encoder, check_encoder, entry_of
from minisplade.index.filters import Condition
from minisplade.index.manifest import Manifest
from minisplade.index.merging import merge
from minisplade.index.postings import build_postings
from minisplade.index.publishing import create_folder
from minisplade.index.reader import Reader
from minisplade.index.snapshot import Snapshot, open_snapshot, verify
from minisplade.index.stream import build_from_stream
from minisplade.index.writer import Writer, checked_rows
from minisplade.vectors import SparseVectors, concatenate

logger = logging.getLogger("minisplade")

MERGE_WAIT_SECONDS = 5.0
"""How long a merge that is asked for waits for another one."""


class Index(Reader):
    """Documents that are searched by sparse vectors.

    An index in memory, from from_texts, from_vectors or load, stays as it is. One in a folder,
    from create or open, can be changed: what is added and deleted counts from commit on, for all
    readers, and is then safe from crashes. Each Index sees one generation until it calls refresh
    or commit; any number may read at once, and one may write.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        encoder: Encoder | None = None,
        encoder_name: str | None = None,
        path: str | None = None,
    ) -> None:
        """Put together what the class methods prepare; use those."""
        super().__init__(snapshot, encoder, encoder_name, path)
        self._writer: Writer | None = None
        self._guard = RLock()  # threads that change the same object take turns

    # Making one

    @classmethod
    def from_vectors(
        cls,
        vectors: SparseVectors,
        keys: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        encoder: Encoder | None = None,
        *,
        compact: bool = False,
    ) -> Index:
        """Index vectors that are already there, in memory.

        keys: a distinct name for each row; without them rows are named "0", "1", ... texts: what
        hits should show. encoder: what queries given as text are encoded with. compact: search in
        two thirds of the memory, as exactly but slower. Raises InputError.
        """
        keys = [str(i) for i in range(len(vectors))] if keys is None else list(keys)
        exchange.check_documents(keys, texts, len(vectors))
        return cls(exchange.held_snapshot(build_postings(vectors, compact), keys, texts), encoder)

    @classmethod
    def from_stream(
        cls,
        blocks: Iterable[SparseVectors],
        keys: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        encoder: Encoder | None = None,
        *,
        compact: bool = False,
    ) -> Index:
        """Index vectors that come in blocks, without holding them all; else as from_vectors."""
        postings = build_from_stream(blocks, compact)
        keys = [str(i) for i in range(postings.num_docs)] if keys is None else list(keys)
        return cls(exchange.held_snapshot(postings, keys, texts), encoder)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        encoder: Encoder,
        keys: Sequence[str] | None = None,
        keep_texts: bool = True,
        *,
        compact: bool = False,
    ) -> Index:
        """Encode documents and index them; keep_texts lets hits show them. Raises InputError."""
        texts = list(texts)
        if not texts:
            raise InputError("there are no texts to index")
        if keys is not None:
            exchange.check_documents(keys, None, len(texts))  # before hours of encoding
        blocks = encoder.encode_stream(texts)
        kept = texts if keep_texts else None
        return cls.from_stream(blocks, keys, kept, encoder, compact=compact)

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: Encoder | None = None) -> Index:
        """Map an index that save wrote.

        encoder: needed for queries given as text; it must be the model that the index was made
        with. Raises IndexFormatError.
        """
        snapshot, encoder_name = exchange.read_file(path)
        return cls(snapshot, encoder, encoder_name)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        encoder: Encoder | None = None,
        *,
        compact: bool = False,
    ) -> Index:
        """Make a folder for an index that can be changed, without documents yet.

        encoder: what texts are encoded with; the index remembers which it was. compact: as in
        from_vectors. Raises InputError where there is something, or IndexWriteError.
        """
        manifest = Manifest(compact=compact)
        if encoder is not None:
            entry, num_terms = entry_of(encoder), len(encoder.terms)
            manifest = replace(manifest, encoder=entry, num_terms=num_terms)
        create_folder(os.fspath(path), manifest)
        return cls.open(path, encoder)

    @classmethod
    def open(cls, path: str | os.PathLike[str], encoder: Encoder | None = None) -> Index:
        """Open the newest generation of an index in a folder, to read and to change it.

        encoder: needed for texts. Raises IndexFormatError, or InputError for an encoder of
        another vocabulary.
        """
        snapshot = open_snapshot(os.fspath(path))
        manifest = snapshot.manifest
        assert manifest is not None
        if encoder is not None:
            check_encoder(encoder, manifest.encoder, manifest.num_terms)
        return cls(snapshot, encoder, manifest.encoder.name, os.fspath(path))

    # Changing it

    def add(
        self,
        keys: Sequence[str],
        texts: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        vectors: SparseVectors | None = None,
    ) -> None:
        """Add documents, in place of those that have the same keys; they count from commit on.

        texts: encoded, unless vectors are given, and shown by hits. metadata: a dict of what JSON
        can hold for each, for filters to ask about. Raises InputError, IndexLockedError while
        another writes, or IndexWriteError, after which all since the last commit is undone.
        """
        rows = checked_rows(keys, texts, metadata)
        if vectors is None:
            vectors = self._encoded([text for _, text, _ in rows])
        if len(vectors) != len(rows):
            raise InputError(f"{len(vectors)} vectors for {len(rows)} keys")
        vectors.check()
        with self._writing() as writer:
            writer.add(rows, vectors)

    def update(
        self,
        keys: Sequence[str],
        texts: Sequence[str | None] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        *,
        vectors: SparseVectors | None = None,
    ) -> None:
        """Change documents that are there; what is not given stays. Else as add."""
        rows = checked_rows(keys, texts, metadata)
        if vectors is None and texts is not None:
            vectors = self._encoded([text for _, text, _ in rows])
        if vectors is not None and len(vectors.check()) != len(rows):
            raise InputError(f"{len(vectors)} vectors for {len(rows)} keys")
        with self._writing() as writer:
            stored, stored_vectors = writer.stored([row[0] for row in rows], vectors is None)
            merged = [
                (key, old[1] if texts is None else text, old[2] if metadata is None else json)
                for (key, text, json), old in zip(rows, stored, strict=True)
            ]
            writer.add(merged, stored_vectors if vectors is None else vectors)

    def delete(self, documents: Iterable[str] | Condition) -> int:
        """Delete documents by key, or by a condition on metadata; returns how many there were.

        They are found until commit. Raises as add does.
        """
        if isinstance(documents, str):
            raise InputError(f"keys are the string {documents!r}; expected a list of keys")
        with self._writing() as writer:
            if isinstance(documents, Mapping):
                return writer.delete_matching(documents)
            return writer.delete(documents)

    def commit(self, merge: bool = True) -> int:
        """Make all changes since the last commit durable at once; returns the generation.

        When this returns, they survive a crash; when it raises IndexWriteError, none of them
        counts. merge: then merge segments where there are many of a size, which takes longer the
        rarer it is.
        """
        self._folder()
        with self._guard:
            if self._writer is not None:
                writer, self._writer = self._writer, None
                self.snapshot = writer.commit()
                if merge:
                    self._merge_if_free()
            return self.stats().generation

    def rollback(self) -> None:
        """Forget all changes since the last commit."""
        with self._guard:
            if self._writer is not None:
                self._writer.rollback()
                self._writer = None

    def refresh(self) -> bool:
        """Look at the newest generation, and tell whether it is another one.

        Raises IndexFormatError.
        """
        before = self.snapshot
        self.snapshot = open_snapshot(self._folder(), before)
        return self.snapshot.manifest != before.manifest

    def merge(self, background: bool = False) -> Thread | None:
        """Make one segment of neighbours of about one size, as often as there are many.

        background: do so in a thread, which is returned, while this index is used on. Raises
        InputError before a commit, IndexLockedError, or IndexWriteError.
        """
        return self._merge(False, background)

    def compact(self, background: bool = False) -> Thread | None:
        """Make all documents one segment, without room for what is deleted; else as merge."""
        return self._merge(True, background)

    def verify(self, full: bool = False) -> int:
        """Check the files of the newest generation; returns how many bytes were read.

        full: read everything; no change of a byte stays unnoticed. Raises IndexFormatError.
        """
        return verify(self._folder(), full)

    def close(self) -> None:
        """Forget changes that were not committed, and let go of the lock."""
        self.rollback()

    def __enter__(self) -> Index:
        """Return the index; leaving the block commits, or forgets changes after an error."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._writer is not None:
            self.commit()
        self.close()

    def import_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Add what export_jsonl wrote; returns how many documents; commit makes them count."""
        count = 0
        for keys, texts, metadata, vectors in exchange.read_json_lines(path):
            self.add(keys, texts, metadata, vectors=vectors)
            count += len(keys)
        return count

    # What the above share

    def _folder(self) -> str:
        if self.path is None:
            raise InputError("this index is in memory; Index.create(path) makes one that changes")
        return self.path

    def _encoded(self, texts: Sequence[str | None]) -> SparseVectors:
        encoder = self._needed_encoder()
        for place, text in enumerate(texts):
            if text is None:
                raise InputError(f"document {place} has neither text nor vector")
        blocks = list(encoder.encode_stream(text for text in texts if text is not None))
        return concatenate(blocks, len(encoder.terms))

    @contextmanager
    def _writing(self) -> Iterator[Writer]:
        """Begin a transaction unless there is one; an error that is not the caller's ends it."""
        folder = self._folder()
        with self._guard:
            if self._writer is None:
                encoder = None if self.encoder is None else entry_of(self.encoder)
                self._writer = Writer(folder, self.snapshot, encoder)
            try:
                yield self._writer
            except InputError:
                raise  # nothing was changed
            except BaseException:
                self.rollback()
                raise
            finally:
                if self._writer is not None and not self._writer.is_changed:
                    self.rollback()  # so that nobody waits for nothing

    def _merge_if_free(self) -> None:
        try:
            self._merge(everything=False, background=False, wait_seconds=0.0)
        except IndexLockedError:
            pass  # another merge is at work
        except MiniSpladeError as error:
            logger.warning("committed, but segments could not be merged: %s", error)

    def _merge(
        self, everything: bool, background: bool, wait_seconds: float = MERGE_WAIT_SECONDS
    ) -> Thread | None:
        folder = self._folder()
        if self._writer is not None:
            raise InputError("there are changes that were not committed; commit or roll back first")
        if background:
            thread = Thread(target=_merge_quietly, args=(folder, self.snapshot, everything))
            thread.start()
            return thread
        while merge(folder, self.snapshot, everything, wait_seconds):
            self.refresh()
        return None


def _merge_quietly(folder: str, snapshot: Snapshot, everything: bool) -> None:
    """Merge, and log what goes wrong, as a thread has nobody to tell."""
    try:
        while merge(folder, snapshot, everything, MERGE_WAIT_SECONDS):
            pass
    except MiniSpladeError as error:
        logger.warning("segments of %s could not be merged: %s", folder, error)
