"""The few operations by which a durable index changes its folder.

Each is called through this module, never by another name, so that tests can stop a process at any
of them, make any of them fail, and lose what a power cut would lose.
"""

import os
from collections.abc import Iterable


def create(path: str) -> int:
    """Create a file that must not exist, for writing; returns its handle."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)


def write(handle: int, content: memoryview) -> int:
    """Write the beginning of content; returns how many bytes it was."""
    return os.write(handle, content)


def sync(handle: int) -> None:
    """Wait until the content of a file is on the disk."""
    os.fsync(handle)


def close(handle: int) -> None:
    """Let go of a handle."""
    os.close(handle)


def rename(source: str, target: str) -> None:
    """Give a file a new name, in place of the file that has it."""
    os.replace(source, target)


def sync_folder(path: str) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: str) -> None:
    """Take a name away; who has the file open keeps it."""
    os.unlink(path)


MOST_BYTES = 1 << 26
"""Bytes of one write; systems cut longer ones off at 2 GiB anyway."""


def write_file(path: str, parts: Iterable[bytes | memoryview]) -> None:
    """Create a file of these parts and wait until it is on the disk; raises OSError."""
    handle = create(path)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                written = write(handle, rest[:MOST_BYTES])
                rest = rest[written:]
        sync(handle)
    finally:
        close(handle)
