"""What torch.save writes, put together by hand, so that tests can also get it wrong."""

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]
STORAGES = {"f": "FloatStorage", "e": "HalfStorage", "d": "DoubleStorage", "l": "LongStorage"}


def text(string: str) -> bytes:
    return b"X" + struct.pack("<I", len(string.encode())) + string.encode()


def whole(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def tensor(
    key: str,
    count: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    offset: int = 0,
    kind: str = "FloatStorage",
    legacy: bool = False,
) -> bytes:
    """Return the instructions that rebuild one tensor."""
    parts = [text("storage"), name("torch", kind), text(key), text("cpu"), whole(count)]
    storage = tuple_of(*parts, *([b"N"] if legacy else [])) + b"Q"
    sizes = (tuple_of(*map(whole, numbers)) for numbers in (shape, strides))
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = tuple_of(storage, whole(offset), *sizes, b"\x89", hooks)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def dict_of(values: Mapping[str, bytes]) -> bytes:
    items = b"".join(text(key) + value for key, value in values.items())
    return name("collections", "OrderedDict") + b")R(" + items + b"u"


def state_dict(tensors: Tensors, legacy: bool = False) -> bytes:
    values = {}
    for key, (title, array) in enumerate(tensors.items()):
        steps = tuple(stride // array.itemsize for stride in array.strides)
        values[title] = tensor(
            str(key),
            array.size,
            array.shape,
            steps,
            kind=STORAGES[array.dtype.char],
            legacy=legacy,
        )
    return dict_of(values)


def zip_file(
    tensors: Tensors,
    pickled: bytes | None = None,
    extra: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """Return a file of torch 1.6 or later; pickled takes the place of the right instructions."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        content = program(state_dict(tensors)) if pickled is None else pickled
        archive.writestr("archive/data.pkl", content)
        for key, array in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")  # of the format; torch insists on it
        for title, content in (extra or {}).items():
            archive.writestr(f"archive/{title}", content)
    return file.getvalue()


def legacy_file(tensors: Tensors, pickled: bytes | None = None, little: bool = True) -> bytes:
    """Return a file of a torch before 1.6."""
    magic = b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
    system = b"}(" + text("little_endian") + (b"\x88" if little else b"\x89") + b"u"
    keys = b"](" + b"".join(text(str(key)) for key in range(len(tensors))) + b"e"
    content = program(state_dict(tensors, legacy=True)) if pickled is None else pickled
    file = program(magic) + program(whole(1001)) + program(system) + content + program(keys)
    for array in tensors.values():
        file += struct.pack("<q", array.size) + array.tobytes()
    return file


def random_tensors() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(3)
    return {
        "a.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "a.bias": rng.standard_normal(3).astype(np.float16),
        "wide": rng.standard_normal((2, 2, 2)),
        "position_ids": np.arange(5)[None],
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
