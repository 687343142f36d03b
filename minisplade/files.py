"""Files of named arrays: safetensors, memory-mapped on reading and replaced whole on writing."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from minisplade.errors import IndexFormatError, InputError, MiniSpladeError

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # NumPy has no bfloat16: the raw bits
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "F64": np.dtype("<f8"),
    "F8_E4M3": np.dtype("u1"),  # raw bits, as of the next
    "F8_E5M2": np.dtype("u1"),
    # No file of ours has these; they are read so that errors can name them.
    "U32": np.dtype("<u4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "BOOL": np.dtype("?"),
}

LFS_POINTER = b"version https://git-lfs"


def map_safetensors(
    path: str | os.PathLike[str], error_type: type[MiniSpladeError]
) -> tuple[dict[str, NDArray[Any]], dict[str, str], dict[str, str]]:
    """Map every tensor of a safetensors file into memory without reading it.

    Returns arrays by name (bfloat16 as its uint16 bits), the safetensors dtype names, and the
    metadata of the file. Raises error_type where the file is missing, cut short or malformed.
    """
    try:
        # The library checks the header: sizes, overlaps and the file's length.
        with safe_open(path, framework="numpy") as checked:
            metadata = dict(checked.metadata() or {})
        with open(path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_size))
        content = np.memmap(path, dtype=np.uint8, mode="r")[8 + header_size :]
    except FileNotFoundError as error:
        raise error_type(f"{path} does not exist") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise error_type(f"{path} {_what_it_is(path)}: {error}") from error
    header.pop("__metadata__", None)
    arrays, dtypes = {}, {}
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            continue  # buffers of other kinds are nobody's weights; what is missed is named later
        start, end = entry["data_offsets"]
        raw = np.ndarray.view(content[start:end], np.ndarray)
        arrays[name] = aligned(raw, DTYPES[entry["dtype"]]).reshape(entry["shape"])
        dtypes[name] = entry["dtype"]
    return arrays, dtypes, metadata


def _what_it_is(path: str | os.PathLike[str]) -> str:
    """Guess why a file cannot be read."""
    if os.path.isdir(path):
        return "is a folder; expected a safetensors file"
    with suppress(OSError), open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            return "only points to a file in Git LFS; run `git lfs pull` where it came from"
    return "is not a safetensors file, or is cut short or damaged"


def aligned(raw: NDArray[np.uint8], dtype: np.dtype[Any]) -> NDArray[Any]:
    """View bytes as numbers, through a copy where they start at an odd address."""
    if raw.ctypes.data % dtype.itemsize:
        raw = raw.copy()
    return raw.view(dtype)


def read_arrays(
    path: str | os.PathLike[str], format_name: str, newest: int
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Map a file that write_arrays wrote; returns its arrays and metadata.

    Raises IndexFormatError where it is no such file or of a version above newest.
    """
    arrays, _, metadata = map_safetensors(path, IndexFormatError)
    if metadata.get("format") != format_name:
        raise IndexFormatError(f"{path} is not a {format_name} file")
    version = metadata.get("version", "")
    if not version.isdecimal() or int(version) > newest:
        raise IndexFormatError(
            f"{path} has format version {version or 'unknown'}, this minisplade reads up to "
            f"{newest}; upgrade minisplade, or write the file again"
        )
    return arrays, metadata


def write_arrays(
    path: str | os.PathLike[str],
    arrays: Mapping[str, NDArray[Any]],
    format_name: str,
    version: int,
    metadata: Mapping[str, str],
) -> None:
    """Write named arrays and metadata as one safetensors file, all or nothing."""
    header = {"format": format_name, "version": str(version), **metadata}
    with replacing(path) as file:
        for part in safetensors_parts(arrays, header):
            file.write(part)


def safetensors_parts(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """Return a safetensors file as the parts that make it: its header, and the bytes of each array.

    The library would copy the arrays, which takes a large index as long as writing it does. Wide
    numbers come first, as it puts them, so that all are aligned.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts: list[bytes | memoryview] = []
    end = 0
    for name, array in sorted(arrays.items(), key=lambda named: (-named[1].itemsize, named[0])):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        start, end = end, end + array.nbytes
        dtype = f"{array.dtype.kind}{8 * array.itemsize}".upper()
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [start, end]}
        parts.append(array.reshape(-1).view(np.uint8).data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little") + head, *parts]


def check_target(path: str | os.PathLike[str]) -> None:
    """Raise InputError unless a file can be written at path; for before hours of work."""
    target = _target(path)
    if not target.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {target.parent}")
    try:
        # Asking for permissions is not enough: the file system may be read-only, or full.
        with tempfile.TemporaryFile(dir=target.parent) as probe:
            probe.write(b"?")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file that takes the place of path only when the block ends without an error.

    Folders on the way are made. Raises InputError where path is something else than a file.
    """
    target = _target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{target.name[:32]}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; give this one what the user's umask allows.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(partial, 0o666 & ~umask)
        os.replace(partial, target)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _target(path: str | os.PathLike[str]) -> Path:
    """Follow links to the file that a write should replace; raises InputError if it is none."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise InputError(f"{path} is a folder; expected the name of a file to write")
    if target.exists() and not target.is_file():
        raise InputError(f"{path} is not a regular file, so it cannot be replaced")
    return target
