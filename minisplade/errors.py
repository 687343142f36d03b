"""Every exception that minisplade raises on purpose.

MiniSpladeError
├─ InputError (also ValueError)   a caller's argument or a line of a caller's file
├─ ModelNotFoundError             no such model here, in the cache or where it is fetched from
├─ CheckpointError                a model's files: missing tensor, wrong shape, unknown architecture
├─ IndexFormatError               an index or vector file: wrong kind, version, length or content
├─ IndexLockedError               another writer is at work on the same index
└─ IndexWriteError                the disk refused; the last commit stands
"""


class MiniSpladeError(Exception):
    """Base of all errors whose message is meant for the person who called."""


class InputError(MiniSpladeError, ValueError):
    """An argument, text or input line that cannot be used as given."""


class ModelNotFoundError(MiniSpladeError):
    """A model that is neither on this machine nor to be had from where it is published."""


class CheckpointError(MiniSpladeError):
    """Model files that are incomplete, damaged or of an architecture that is not supported."""


class IndexFormatError(MiniSpladeError):
    """A file that is not a minisplade index or vector file, or is damaged or too new."""


class IndexLockedError(MiniSpladeError):
    """A durable index that another process or object is changing at the moment."""


class IndexWriteError(MiniSpladeError):
    """A change that could not be written: a full disk, a failing one, or no permission."""
