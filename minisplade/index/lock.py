"""Locks between processes: one writer at a time, and one merge at a time."""

from __future__ import annotations

import os
import time

from minisplade.errors import IndexLockedError, IndexWriteError, InputError

RETRY_SECONDS = 0.01


class Lock:
    """A file that one holder at a time has locked; the system lets go when the holder dies.

    So a lock never outlives its process, and what a dead writer left is simply taken over.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._handle: int | None = None
        self._process = 0

    @property
    def is_held(self) -> bool:
        """Whether this object has the lock; a copy in a forked process has not."""
        return self._handle is not None and self._process == os.getpid()

    def acquire(self, wait_seconds: float = 0.0) -> None:
        """Take the lock, waiting for its holder; raises IndexLockedError, or IndexWriteError."""
        deadline = time.monotonic() + wait_seconds
        while not self._try():
            if time.monotonic() >= deadline:
                raise IndexLockedError(
                    f"{os.path.dirname(self.path)} is being changed by another writer; try again "
                    "when it has committed or rolled back"
                )
            time.sleep(RETRY_SECONDS)

    def release(self) -> None:
        """Let the next one have it."""
        if self.is_held:
            assert self._handle is not None
            os.close(self._handle)
        self._handle = None

    def _try(self) -> bool:
        try:
            import fcntl
        except ImportError as error:
            raise InputError("changing an index needs the file locks of a POSIX system") from error
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise IndexWriteError(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who locks a file that was replaced meanwhile has locked nothing.
            if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                self._handle, self._process = handle, os.getpid()
                return True
        except (BlockingIOError, FileNotFoundError):
            pass
        except OSError as error:
            os.close(handle)
            raise IndexWriteError(f"{self.path} cannot be locked: {error.strerror}") from error
        os.close(handle)
        return False
