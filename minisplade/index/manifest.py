"""The manifest: the one file that says which files an index consists of, and is switched last."""

from __future__ import annotations

import json
import os
import re
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from minisplade import disk
from minisplade.errors import IndexFormatError

FILE_NAME = "manifest"
NEXT_NAME = "manifest.next"

MAGIC = "minisplade-manifest"
VERSION = 1

OWN_FILES = re.compile(r"[0-9a-f]{16}\.(postings|documents|deleted)")
"""Names of files that manifests list; nothing else in the folder is ever read or removed."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file that never changes."""

    name: str
    size_bytes: int
    crc32: int  # that of zlib, over the whole file


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment: two files, how many documents are in it, and how many of them are deleted."""

    postings: FileEntry
    documents: FileEntry
    num_docs: int
    num_deleted: int
    num_postings: int


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """Which model made the vectors; each part is None where it is not known."""

    name: str | None = None
    revision: str | None = None
    vocabulary: str | None = None  # SHA-256 of the terms in order


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation of an index: what a commit publishes and a reader opens."""

    generation: int = 0
    num_terms: int | None = None  # V; None until the first vectors come
    compact: bool = False
    encoder: EncoderEntry = EncoderEntry()
    segments: tuple[SegmentEntry, ...] = ()
    deleted: FileEntry | None = None  # bitmaps of deleted documents, where there are any

    @property
    def files(self) -> list[FileEntry]:
        """All files but the manifest itself."""
        own = [file for segment in self.segments for file in (segment.postings, segment.documents)]
        return own + ([self.deleted] if self.deleted else [])

    def to_bytes(self) -> bytes:
        """Return a first line with the version, a line of JSON, and a line with the checksum."""
        content = f"{MAGIC} {VERSION}\n{json.dumps(asdict(self))}\n".encode()
        return content + f"{zlib.crc32(content):08x}\n".encode()

    @classmethod
    def from_bytes(cls, stored: bytes, path: str) -> Manifest:
        """Undo to_bytes; raises IndexFormatError where it is damaged or of a later version."""
        first = re.match(rb"minisplade-manifest ([1-9][0-9]{0,8})\n", stored)
        if first and int(first[1]) > VERSION:
            raise IndexFormatError(
                f"{path} has format version {int(first[1])}, this minisplade reads up to "
                f"{VERSION}; upgrade minisplade"
            )
        content, checksum = stored[:-9], stored[-9:]
        if not first or checksum != f"{zlib.crc32(content):08x}\n".encode():
            raise IndexFormatError(f"{path} is damaged: its checksum is wrong")
        try:
            return _manifest_of(json.loads(content[first.end() :]))
        except (KeyError, TypeError, ValueError) as error:
            raise IndexFormatError(f"{path} is not a manifest: {error!r}") from error


def read_manifest(folder: str) -> Manifest:
    """Read the newest generation; raises IndexFormatError."""
    path = os.path.join(folder, FILE_NAME)
    try:
        with open(path, "rb") as file:
            return Manifest.from_bytes(file.read(), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IndexFormatError(f"{folder} is not a durable index: it has no {FILE_NAME}") from error
    except OSError as error:
        raise IndexFormatError(f"{path} cannot be read: {error.strerror or error}") from error


def publish(folder: str, manifest: Manifest) -> None:
    """Make this the newest generation, once all its files are on the disk; raises OSError."""
    pending = os.path.join(folder, NEXT_NAME)
    if os.path.exists(pending):  # left by a process that died here
        disk.remove(pending)
    disk.write_file(pending, [manifest.to_bytes()])
    # The names of all new files must be on the disk before the name that makes them count.
    disk.sync_folder(folder)
    disk.rename(pending, os.path.join(folder, FILE_NAME))
    disk.sync_folder(folder)


def _manifest_of(row: dict[str, Any]) -> Manifest:
    return Manifest(
        generation=int(row["generation"]),
        num_terms=None if row["num_terms"] is None else int(row["num_terms"]),
        compact=bool(row["compact"]),
        encoder=EncoderEntry(**row["encoder"]),
        segments=tuple(
            SegmentEntry(
                _file_of(segment["postings"]),
                _file_of(segment["documents"]),
                int(segment["num_docs"]),
                int(segment["num_deleted"]),
                int(segment["num_postings"]),
            )
            for segment in row["segments"]
        ),
        deleted=_file_of(row["deleted"]) if row["deleted"] else None,
    )


def _file_of(row: dict[str, Any]) -> FileEntry:
    if not OWN_FILES.fullmatch(row["name"]):
        raise ValueError(f"a file is named {row['name']!r}")
    return FileEntry(row["name"], int(row["size_bytes"]), int(row["crc32"]))
