"""Snapshots: the segments of one generation of an index, opened, checked and searched together."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from minisplade.arrays import BoolArray
from minisplade.errors import IndexFormatError
from minisplade.files import read_arrays
from minisplade.index.documents import Documents, Row, StoredDocuments
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.manifest import FileEntry, Manifest, SegmentEntry, read_manifest
from minisplade.index.parts import Parts
from minisplade.index.postings import Postings
from minisplade.index.storage import FORMAT, FORMAT_VERSION, postings_from


class Contents(Protocol):
    """What of a segment never changes."""

    @property
    def postings(self) -> Postings:
        """What searches read."""
        ...

    @property
    def documents(self) -> Documents:
        """What hits show."""
        ...


@dataclass(frozen=True, slots=True)
class HeldContents:
    """A segment in memory."""

    postings: Postings
    documents: Documents


class StoredContents:
    """A segment in two files, whose checksums are compared before anything of them is used."""

    def __init__(self, folder: str, entry: SegmentEntry) -> None:
        """Map the files; raises IndexFormatError for one that is missing or of another size."""
        self.entry = entry
        self._paths = [
            os.path.join(folder, file.name) for file in (entry.postings, entry.documents)
        ]
        self._unchecked = [_mapped(folder, file) for file in (entry.postings, entry.documents)]
        self._arrays, self._metadata = read_arrays(self._paths[0], FORMAT, FORMAT_VERSION)
        self._documents = StoredDocuments(self._paths[1])

    @cached_property
    def postings(self) -> Postings:
        """What searches read; raises IndexFormatError where it is damaged."""
        _check(self._unchecked[0], self.entry.postings, self._paths[0])
        try:
            postings = postings_from(self._arrays, self._metadata)
        except (KeyError, ValueError, OverflowError) as error:
            raise IndexFormatError(f"{self._paths[0]} is damaged: {error}") from error
        if postings.num_docs != self.entry.num_docs:
            raise IndexFormatError(f"{self._paths[0]} holds {postings.num_docs} documents")
        return postings

    @cached_property
    def documents(self) -> StoredDocuments:
        """What hits show; raises IndexFormatError where it is damaged."""
        _check(self._unchecked[1], self.entry.documents, self._paths[1])
        return self._documents


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Documents that were added together, and which of them are not deleted."""

    contents: Contents
    num_docs: int
    live: Filter = EVERYTHING  # everything where none is deleted

    @property
    def num_live(self) -> int:
        """The number of documents that are not deleted."""
        return self.num_docs if self.live is EVERYTHING else self.live.doc_ids.size

    @property
    def live_mask(self) -> BoolArray:
        """Which documents are not deleted, bool (N,)."""
        whole = self.live is EVERYTHING
        return np.ones(self.num_docs, dtype=np.bool_) if whole else self.live.allowed

    def live_rows(self) -> Iterator[Row]:
        """Yield the documents that are not deleted, in order."""
        return self.contents.documents.rows(np.flatnonzero(self.live_mask).tolist())


class Snapshot:
    """Segments in order; their documents are numbered through, deleted ones included."""

    def __init__(self, segments: Sequence[Segment], manifest: Manifest | None = None) -> None:
        self.segments = tuple(segments)
        self.manifest = manifest
        sizes = [segment.num_docs for segment in segments]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # (segments + 1,)
        self.num_docs = sum(segment.num_live for segment in segments)

    @cached_property
    def parts(self) -> Parts:
        """What a search reads: the postings of each segment, and which documents are not deleted.

        Raises IndexFormatError where a file is damaged.
        """
        return Parts.of([(own.contents.postings, own.live) for own in self.segments])

    def locate(self, doc_id: int) -> tuple[Segment, int]:
        """Return the segment of a document, and its number there."""
        place = int(np.searchsorted(self.starts, doc_id, side="right")) - 1
        return self.segments[place], doc_id - int(self.starts[place])

    def rows(self, doc_ids: Any) -> list[Row]:
        """Read some documents, given by their numbers, in the order asked for."""
        ids = np.asarray(doc_ids, dtype=np.int64)
        places = np.searchsorted(self.starts, ids, side="right") - 1
        rows: list[Any] = [None] * ids.size
        for place in np.unique(places).tolist():
            asked = np.flatnonzero(places == place)
            own = (ids[asked] - self.starts[place]).tolist()
            found = self.segments[place].contents.documents.rows(own)
            for i, row in zip(asked.tolist(), found, strict=True):
                rows[i] = row
        return rows

    def live_rows(self) -> Iterator[Row]:
        """Yield all documents that are not deleted, in order."""
        return (row for segment in self.segments for row in segment.live_rows())

    def find(self, keys: Sequence[str]) -> dict[str, int]:
        """Return the numbers of those keys that are there and not deleted."""
        found: dict[str, int] = {}
        for segment, start in zip(self.segments, self.starts.tolist()):
            own = segment.contents.documents.find(keys)
            mask = segment.live_mask
            found.update({key: start + place for key, place in own.items() if mask[place]})
        return found


def open_snapshot(folder: str, before: Snapshot | None = None) -> Snapshot:
    """Open the newest generation, keeping what is open of the one before.

    Raises IndexFormatError.
    """
    manifest = read_manifest(folder)
    while True:
        try:
            return _opened(folder, manifest, before)
        except IndexFormatError:
            # A writer may have removed these files after it published a later generation.
            newest = read_manifest(folder)
            if newest == manifest:
                raise
            manifest = newest


def _opened(folder: str, manifest: Manifest, before: Snapshot | None) -> Snapshot:
    known = {}
    if before and before.manifest:
        for entry, segment in zip(before.manifest.segments, before.segments, strict=True):
            known[entry.postings] = segment.contents
    deleted = read_deleted(folder, manifest)
    segments = []
    for entry in manifest.segments:
        contents = known.get(entry.postings) or StoredContents(folder, entry)
        mask = deleted.get(entry.postings.name)
        live = EVERYTHING if mask is None else Filter.from_mask(~mask, entry.num_docs)
        segments.append(Segment(contents, entry.num_docs, live))
    return Snapshot(segments, manifest)


def read_deleted(folder: str, manifest: Manifest) -> dict[str, BoolArray]:
    """Read which documents are deleted, bool (N,) for each segment that has any, by file name.

    Raises IndexFormatError.
    """
    if manifest.deleted is None:
        return {}
    path = os.path.join(folder, manifest.deleted.name)
    content = _mapped(folder, manifest.deleted)
    _check(content, manifest.deleted, path)
    try:
        bitmaps = load(content.tobytes())
    except (SafetensorError, ValueError) as error:
        raise IndexFormatError(f"{path} is damaged: {error}") from error
    masks = {}
    for entry in manifest.segments:
        if entry.num_deleted:
            bits = bitmaps.get(entry.postings.name, np.zeros(0, dtype=np.uint8))
            masks[entry.postings.name] = np.unpackbits(bits, count=entry.num_docs).astype(np.bool_)
            if np.count_nonzero(masks[entry.postings.name]) != entry.num_deleted:
                raise IndexFormatError(f"{path} does not fit the manifest")
    return masks


def stored_deleted(masks: dict[str, BoolArray]) -> bytes:
    """Undo read_deleted: one bit a document, the first in the highest bit of a byte."""
    return save({name: np.packbits(mask) for name, mask in masks.items()})


def _mapped(folder: str, entry: FileEntry) -> NDArray[Any]:
    """Map a file of the size that the manifest says; reading a shorter one would be fatal."""
    path = os.path.join(folder, entry.name)
    try:
        size = os.stat(path).st_size
        if size != entry.size_bytes:
            raise IndexFormatError(f"{path} has {size} bytes, expected {entry.size_bytes}")
        return np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise IndexFormatError(f"{path} cannot be read: {error}") from error


def _check(content: NDArray[Any], entry: FileEntry, path: str) -> None:
    if zlib.crc32(content.data) != entry.crc32:
        raise IndexFormatError(f"{path} is damaged: its checksum is wrong")


def verify(folder: str, full: bool = False) -> int:
    """Check the files of the newest generation and return how many bytes were read.

    The manifest, the sizes of all files and the deleted documents are always checked; full also
    compares every checksum, walks all postings and lets SQLite look through its files. Raises
    IndexFormatError that names every damaged file.
    """
    while True:
        manifest = read_manifest(folder)
        try:
            return _verified(folder, manifest, full)
        except IndexFormatError:
            if read_manifest(folder) == manifest:
                raise  # else a writer has gone on meanwhile, and removed files


def _verified(folder: str, manifest: Manifest, full: bool) -> int:
    problems = [problem for file in manifest.files if (problem := _problem(folder, file, full))]
    if problems:
        raise IndexFormatError("\n".join(problems))
    snapshot = _opened(folder, manifest, None)
    if not full:
        return 0 if manifest.deleted is None else manifest.deleted.size_bytes
    for segment in snapshot.segments:
        segment.contents.postings.check()
        segment.contents.documents.check(segment.num_docs)
    return sum(file.size_bytes for file in manifest.files)


def _problem(folder: str, file: FileEntry, full: bool) -> str | None:
    """Return what is wrong with a file, looking at its size or at all of it."""
    try:
        content = _mapped(folder, file)
        if full:
            _check(content, file, os.path.join(folder, file.name))
    except IndexFormatError as error:
        return str(error)
    return None
