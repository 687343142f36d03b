"""Publishing: how files become the next generation of an index, and how others are removed."""

from __future__ import annotations

import os
import secrets
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minisplade import disk
from minisplade.arrays import BoolArray
from minisplade.errors import IndexFormatError, IndexLockedError, IndexWriteError, InputError
from minisplade.files import safetensors_parts
from minisplade.index.documents import Row, stored_documents
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.lock import Lock
from minisplade.index.manifest import (
    FILE_NAME,
    NEXT_NAME,
    OWN_FILES,
    FileEntry,
    Manifest,
    SegmentEntry,
    publish,
    read_manifest,
)
from minisplade.index.postings import Postings
from minisplade.index.snapshot import Segment, Snapshot, StoredContents, stored_deleted
from minisplade.index.storage import FORMAT, FORMAT_VERSION, stored

LOCK_NAME = "lock"
MERGE_LOCK_NAME = "lock.merge"


def create_folder(folder: str, manifest: Manifest) -> None:
    """Make a folder with a first generation; raises InputError where there is something else."""
    folder = os.path.abspath(folder)
    own = {LOCK_NAME, MERGE_LOCK_NAME, NEXT_NAME}  # left by a process that died here
    try:
        os.makedirs(folder, exist_ok=True)
        if set(os.listdir(folder)) - own:
            raise InputError(f"{folder} is not empty; give another name for a new index")
        lock = Lock(os.path.join(folder, LOCK_NAME))
        lock.acquire()
        try:
            if os.path.exists(os.path.join(folder, FILE_NAME)):
                raise InputError(f"{folder} has just been made by another writer")
            publish(folder, manifest)
            disk.sync_folder(os.path.dirname(folder))
        finally:
            lock.release()
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is a file; expected the name of a folder to make") from error
    except OSError as error:
        raise write_error(folder, error) from error


@dataclass(slots=True)
class Draft:
    """A segment of the next generation: its files, and which documents are deleted by now."""

    entry: SegmentEntry
    contents: StoredContents
    deleted: BoolArray  # bool (N,)


def drafts_of(snapshot: Snapshot) -> list[Draft]:
    """Return the segments of a generation, to be changed for the next one."""
    assert snapshot.manifest is not None
    return [
        Draft(entry, segment.contents, ~segment.live_mask)  # type: ignore[arg-type]
        for entry, segment in zip(snapshot.manifest.segments, snapshot.segments, strict=True)
    ]


def new_draft(folder: str, entry: SegmentEntry) -> Draft:
    """Open a segment that has just been written."""
    return Draft(entry, StoredContents(folder, entry), np.zeros(entry.num_docs, dtype=np.bool_))


def write_segment(folder: str, postings: Postings, rows: Iterable[Row]) -> SegmentEntry:
    """Write the two files of a segment, under names that no manifest knows yet.

    Raises IndexWriteError, leaving no file.
    """
    name = secrets.token_hex(8)
    arrays, metadata = stored(postings)
    header = {"format": FORMAT, "version": str(FORMAT_VERSION), **metadata}
    try:
        first = _written(folder, f"{name}.postings", safetensors_parts(arrays, header))
        second = _written(folder, f"{name}.documents", [stored_documents(rows)])
    except (OSError, sqlite3.Error) as error:
        remove_files(folder, [f"{name}.postings", f"{name}.documents"])
        raise write_error(folder, error) from error
    return SegmentEntry(first, second, postings.num_docs, 0, postings.num_postings)


def _written(folder: str, name: str, parts: Sequence[bytes | memoryview]) -> FileEntry:
    disk.write_file(os.path.join(folder, name), parts)
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return FileEntry(name, sum(map(len, parts)), checksum)


def publish_drafts(folder: str, before: Manifest, drafts: Sequence[Draft]) -> Snapshot:
    """Make these segments the next generation, and remove the files that it does without.

    Segments of which nothing is left are left out. Raises IndexWriteError.
    """
    kept = [draft for draft in drafts if not draft.deleted.all()]
    counts = [int(np.count_nonzero(draft.deleted)) for draft in kept]
    masks = {d.entry.postings.name: d.deleted for d, count in zip(kept, counts) if count}
    entries = tuple(replace(d.entry, num_deleted=count) for d, count in zip(kept, counts))
    deleted = None
    try:
        if masks:
            content = stored_deleted(masks)
            deleted = _written(folder, f"{secrets.token_hex(8)}.deleted", [content])
        manifest = replace(
            before, generation=before.generation + 1, segments=entries, deleted=deleted
        )
        publish(folder, manifest)
    except OSError as error:
        raise write_error(folder, error) from error
    remove_files(folder, sorted(_names(before.files) - _names(manifest.files)))
    segments = []
    for draft, count in zip(kept, counts):
        num_docs = draft.entry.num_docs
        live = Filter.from_mask(~draft.deleted, num_docs) if count else EVERYTHING
        segments.append(Segment(draft.contents, num_docs, live))
    return Snapshot(segments, manifest)


def collect(folder: str) -> None:
    """Remove what died with other writers, unless a merge is at work; needs the lock."""
    merging = Lock(os.path.join(folder, MERGE_LOCK_NAME))
    try:
        merging.acquire()
    except (IndexLockedError, IndexWriteError):
        return
    try:
        collect_alone(folder)
    finally:
        merging.release()


def collect_alone(folder: str) -> None:
    """Do as collect, holding both locks."""
    try:
        listed = _names(read_manifest(folder).files)
        orphans = {name for name in os.listdir(folder) if OWN_FILES.fullmatch(name)} - listed
        if orphans:
            # The manifest that does without them may have been renamed by a process that died
            # before it could wait for the disk.
            disk.sync_folder(folder)
            remove_files(folder, sorted(orphans))
    except (OSError, IndexFormatError):
        pass  # they do no harm


def remove_files(folder: str, names: Iterable[str]) -> None:
    """Remove files that nothing needs; one that stays does no harm, and is collected later."""
    for name in names:
        try:
            disk.remove(os.path.join(folder, name))
        except OSError:
            pass


def write_error(folder: str, error: Exception) -> IndexWriteError:
    """Say that something could not be written."""
    reason = getattr(error, "strerror", None) or error
    return IndexWriteError(
        f"{folder} cannot be written: {reason}; the last commit stands, and what came after it has "
        "to be added again"
    )


def _names(files: Iterable[FileEntry]) -> set[str]:
    return {file.name for file in files}
