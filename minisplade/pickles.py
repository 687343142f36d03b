"""Weights that torch.save wrote, read without unpickling: the tensors are rebuilt, nothing is run.

A pickle is a program. This reads the few of its instructions that a dict of tensors consists of,
with the names of classes taken as names: none is imported or called, so nothing can be smuggled in.
Both layouts are known, the zip archive and the older row of pickles followed by the numbers.
"""

import io
import math
import os
import pickletools
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minisplade.errors import MiniSpladeError
from minisplade.files import DTYPES, aligned

STORAGES = {
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.DoubleStorage": "F64",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.storage.UntypedStorage": "U8",  # bytes, whose type the tensor tells
}
TENSOR_TYPES = {"torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2"}
REBUILD = tuple(f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3"))

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
MAX_PICKLE_BYTES = 1 << 24
MAX_INSTRUCTIONS = 1 << 18
"""A tensor takes some 30, so this is room for thousands; it bounds time and memory."""
MAX_DIMENSIONS = 8
_MARK = object()


class _BadPickleError(ValueError):
    """What is wrong with a pickle."""


class _Name(NamedTuple):
    """A class or function that a pickle names."""

    full: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def map_pickle(
    path: str | os.PathLike[str], error_type: type[MiniSpladeError]
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Map the tensors of a pytorch_model.bin or .pt file into memory.

    Returns arrays by name (bfloat16 as its uint16 bits) and their safetensors dtype names. Raises
    error_type where the file is missing or damaged, or where the pickle asks for anything but
    tensors, such as running code.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(len(ZIP_MAGIC))
            file.seek(0)
            tensors, spans = _read_zip(file) if magic == ZIP_MAGIC else _read_legacy(file)
        content = np.memmap(path, dtype=np.uint8, mode="r")
        numbers = _numbers(tensors, np.ndarray.view(content, np.ndarray), spans)
        arrays = {
            name: _array(tensor, numbers[tensor.storage.key, tensor.dtype])
            for name, tensor in tensors.items()
        }
    except FileNotFoundError as error:
        raise error_type(f"{path} does not exist") from error
    except (
        # What the readers of the standard library raise for damaged input.
        *(OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error),
        *(IndexError, KeyError, TypeError, OverflowError, EOFError),
    ) as error:
        raise error_type(f"{path} cannot be read as a file of tensors: {error}") from error
    return arrays, {name: tensor.dtype for name, tensor in tensors.items()}


def _read_zip(file: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, tuple[int, int]]]:
    """Return the tensors of an archive, and where each storage starts and how long it is."""
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise _BadPickleError(f"the archive holds {len(pickles)} pickles; expected data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        program = archive.getinfo(pickles[0])
        _expect_stored(program)
        if program.file_size > MAX_PICKLE_BYTES:
            raise _BadPickleError(f"its data.pkl has {program.file_size} bytes, too many to be one")
        order = f"{root}byteorder"
        if order in archive.namelist():
            _expect_stored(archive.getinfo(order))
            if archive.read(order) != b"little":
                raise _BadPickleError("its numbers are big-endian; save it on a common machine")
        tensors = _tensors(_run(io.BytesIO(archive.read(program))))
        spans = {}
        for key in {tensor.storage.key for tensor in tensors.values()}:
            entry = archive.getinfo(f"{root}data/{key}")
            _expect_stored(entry)
            # Only the header beside the data tells where that starts.
            file.seek(entry.header_offset + 26)
            name_size, extra_size = struct.unpack("<HH", file.read(4))
            start = entry.header_offset + 30 + name_size + extra_size
            spans[key] = start, entry.file_size
    return tensors, spans


def _expect_stored(entry: zipfile.ZipInfo) -> None:
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise _BadPickleError(
            f"{entry.filename} is compressed or encrypted, which torch never does"
        )


def _read_legacy(file: BinaryIO) -> tuple[dict[str, _Tensor], dict[str, tuple[int, int]]]:
    """Return the same of a file in the format before torch 1.6."""
    start = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    for expected in (LEGACY_MAGIC, LEGACY_VERSION):
        if _run(start) != expected:
            raise _BadPickleError("it is a pickle, but not one that torch.save wrote")
    if _expect(_run(start), dict).get("little_endian") is not True:
        raise _BadPickleError("its numbers are big-endian; save it on a common machine")
    tensors = _tensors(_run(start))
    keys, at = _expect(_run(start), list), start.tell()
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    spans: dict[str, tuple[int, int]] = {}
    for key in keys:
        file.seek(at)
        (count,) = struct.unpack("<q", file.read(8))
        if _expect(key, str) not in storages:
            raise _BadPickleError(f"storage {key!r} belongs to no tensor")
        size = count * DTYPES[storages[key].dtype].itemsize
        spans[key] = at + 8, size
        at += 8 + size
    return tensors, spans


def _numbers(
    tensors: Mapping[str, _Tensor], content: NDArray[np.uint8], spans: Mapping[str, tuple[int, int]]
) -> dict[tuple[str, str], NDArray[Any]]:
    """View each storage as a row of numbers; tensors may share one, so it is done once."""
    numbers = {}
    for key, kind in {(tensor.storage.key, tensor.dtype) for tensor in tensors.values()}:
        start, size = spans[key]
        if not 0 <= start <= start + size <= content.size:
            raise _BadPickleError("it is cut short")
        dtype = DTYPES[kind]
        whole = content[start : start + size // dtype.itemsize * dtype.itemsize]
        numbers[key, kind] = aligned(whole, dtype)
    return numbers


def _array(tensor: _Tensor, numbers: NDArray[Any]) -> NDArray[Any]:
    """View a tensor, which must lie within its storage."""
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, numbers.dtype)
    last = tensor.offset + sum(
        (extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.strides)
    )
    # Strides of 0 would make a tensor of any size out of a few bytes.
    if max(last, math.prod(tensor.shape) - 1) >= numbers.size:
        raise _BadPickleError(
            f"a tensor of shape {tensor.shape} reaches beyond its {numbers.size} numbers"
        )
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)


def _tensors(result: Any) -> dict[str, _Tensor]:
    """Return the tensors of a pickled dict by name; its other values are nobody's weights."""
    if not isinstance(result, dict):
        raise _BadPickleError(f"it holds a {type(result).__name__}; expected a dict of tensors")
    return {
        name: value
        for name, value in result.items()
        if isinstance(name, str) and isinstance(value, _Tensor)
    }


def _run(file: io.BytesIO) -> Any:
    """Follow a pickle up to its end, as far as dicts of tensors go, and return what it makes.

    Source: the descriptions of the instructions in the standard library's pickletools.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if number > MAX_INSTRUCTIONS:
            raise _BadPickleError("its pickle is far longer than any list of tensors")
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            stack.append(argument)
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(_Name(str(argument).replace(" ", ".")))
        elif name not in ("PROTO", "FRAME"):
            _combine(name, stack)
    raise _BadPickleError("its pickle has no end")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_EMPTY: dict[str, type] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_LITERALS = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    + ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING")
)


def _combine(name: str, stack: list[Any]) -> None:
    """Carry out an instruction that makes one value of several on the stack."""
    if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        items = [stack.pop() for _ in range(int(name[-1]))]
        stack.append(tuple(reversed(items)))
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name == "LIST":
        stack.append(_since_mark(stack))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        _expect(stack[-1], list).extend(items)
    elif name in ("SETITEM", "SETITEMS", "DICT"):
        items = [*reversed((stack.pop(), stack.pop()))] if name == "SETITEM" else _since_mark(stack)
        if name == "DICT":
            stack.append({})
        _expect(stack[-1], dict).update(_pairs(zip(items[::2], items[1::2], strict=True)))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_Name(f"{_expect(module, str)}.{_expect(attribute, str)}"))
    elif name == "BINPERSID":
        stack.append(_storage(_expect(stack.pop(), tuple)))
    elif name == "REDUCE":
        arguments, function = _expect(stack.pop(), tuple), _expect(stack.pop(), _Name)
        stack.append(_rebuild(function.full, arguments))
    elif name == "BUILD":
        stack.pop()  # attributes of the dict, such as _metadata
        _expect(stack[-1], dict)
    else:
        raise _BadPickleError(f"its pickle asks for {name}, which no file of tensors needs")


def _pairs(pairs: Iterable[Any]) -> dict[str, Any]:
    """Make a dict whose keys are strings: a key of nested tuples would take forever to hash."""
    return {_expect(key, str): value for key, value in pairs}


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take what was put on the stack after the last mark, and the mark."""
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _BadPickleError(f"its pickle uses a {type(value).__name__} as a {kind.__name__}")
    return value


def _storage(reference: tuple[Any, ...]) -> _Storage:
    """Read the reference to a row of numbers: "storage", its class, key, device and length."""
    if len(reference) not in (5, 6) or reference[0] != "storage":
        raise _BadPickleError("its pickle refers to something that is not a storage")
    if len(reference) == 6 and reference[5] is not None:
        raise _BadPickleError("it has views of storages, which were given up long ago")
    name = _expect(reference[1], _Name).full
    if name not in STORAGES:
        raise _BadPickleError(f"its numbers are of the kind {name}, which is not supported")
    return _Storage(_expect(reference[2], str), STORAGES[name], _whole(reference[4]))


def _rebuild(function: str, arguments: tuple[Any, ...]) -> Any:
    """Make what one of the few functions of such files would return; refuse all others."""
    if function == "collections.OrderedDict":
        return _pairs(*arguments) if arguments else {}
    if function == "torch._utils._rebuild_parameter":
        return _expect(arguments[0], _Tensor)
    if function not in REBUILD:
        raise _BadPickleError(
            f"its pickle would call {function}; refused, because a file of weights needs to call "
            "nothing but what makes tensors, and anything else could run code"
        )
    storage, offset, shape, strides = arguments[:4]
    dtype = _expect(storage, _Storage).dtype
    if function.endswith("_v3"):
        kind = _expect(arguments[6], _Name).full
        if kind not in TENSOR_TYPES:
            raise _BadPickleError(f"its numbers are of the kind {kind}, which is not supported")
        dtype = TENSOR_TYPES[kind]
    shape, strides = (tuple(map(_whole, _expect(sizes, tuple))) for sizes in (shape, strides))
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise _BadPickleError(f"a tensor has shape {shape[:9]} and strides {strides[:9]}")
    return _Tensor(storage, dtype, _whole(offset), shape, strides)


def _whole(number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 48:
        raise _BadPickleError(f"its pickle gives a {type(number).__name__} or too much as a size")
    return number
