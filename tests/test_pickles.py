"""Files that torch.save writes: read right, and refused where they want more than tensors."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files as files

from minisplade.errors import CheckpointError
from minisplade.pickles import map_pickle

TENSORS = files.random_tensors()


def load(tmp_path: Path, content: bytes) -> dict[str, Any]:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    return map_pickle(path, CheckpointError)[0]


@pytest.mark.parametrize("write", [files.zip_file, files.legacy_file])
def test_tensors_of_all_kinds(tmp_path: Path, write: Any) -> None:
    loaded = load(tmp_path, write(TENSORS))
    assert loaded.keys() == TENSORS.keys()
    for name, expected in TENSORS.items():
        assert loaded[name].dtype == expected.dtype
        np.testing.assert_array_equal(loaded[name], expected)


def test_tensors_share_a_storage_and_may_be_transposed(tmp_path: Path) -> None:
    numbers = np.arange(12, dtype=np.float32)
    values = {
        "a": files.tensor("0", 12, (3, 4), (4, 1)),
        "t": files.tensor("0", 12, (4, 3), (1, 4)),
        "part": files.tensor("0", 12, (2, 2), (4, 1), offset=5),
    }
    loaded = load(tmp_path, files.zip_file({"0": numbers}, files.program(files.dict_of(values))))
    np.testing.assert_array_equal(loaded["a"], numbers.reshape(3, 4))
    np.testing.assert_array_equal(loaded["t"], numbers.reshape(3, 4).T)
    np.testing.assert_array_equal(loaded["part"], numbers.reshape(3, 4)[1:, 1:3])


def test_values_other_than_tensors_are_left_out(tmp_path: Path) -> None:
    values = {"version": files.whole(3), "none": b"N", "a": files.tensor("0", 2, (2,), (1,))}
    content = files.zip_file({"0": np.ones(2, np.float32)}, files.program(files.dict_of(values)))
    assert list(load(tmp_path, content)) == ["a"]


class Canary:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, form: str, protocol: int) -> None:
    canary = tmp_path / "canary"
    pickled = pickle.dumps(OrderedDict(weight=Canary(canary)), protocol)
    content = {
        "zip": files.zip_file({}, pickled),
        "legacy": files.legacy_file({}, pickled),
        "bare": pickled,
    }[form]
    with pytest.raises(CheckpointError, match="cannot be read as a file of tensors"):
        load(tmp_path, content)
    assert not canary.exists()
    pickle.loads(pickled)  # the canary does sing where it is let
    assert canary.exists()


def test_the_message_names_what_would_be_called(tmp_path: Path) -> None:
    pickled = files.program(files.name("os", "system") + files.tuple_of(files.text("true")) + b"R")
    with pytest.raises(CheckpointError, match=r"would call os\.system; refused"):
        load(tmp_path, files.zip_file({}, pickled))


ONE = {"0": np.ones(4, np.float32)}


def one(**change: Any) -> bytes:
    """Return an archive with one tensor, of which something is wrong."""
    options = {"key": "0", "count": 4, "shape": (4,), "strides": (1,)} | change
    return files.zip_file(ONE, files.program(files.dict_of({"a": files.tensor(**options)})))


WRONG = {
    "empty": (b"", "exhausted"),
    "text": (b"hello", "cannot be read"),
    "a list": (files.zip_file({}, files.program(b"]")), "holds a list; expected a dict"),
    "no pickle": (files.zip_file({}, extra={"x/data.pkl": b""}), "holds 2 pickles"),
    "no end": (files.zip_file({}, b"\x80\x02}"), "exhausted"),
    "compressed": (files.zip_file(TENSORS, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "big-endian": (files.zip_file({}, extra={"byteorder": b"big"}), "are big-endian"),
    "big-endian legacy": (files.legacy_file({}, little=False), "are big-endian"),
    "no storage": (one(key="7"), "archive/data/7"),
    "outside": (one(key="../../x"), "cannot be read"),
    "too long": (one(shape=(5,)), "reaches beyond its 4 numbers"),
    "strides too wide": (one(shape=(2, 2), strides=(3, 1)), "reaches beyond"),
    "no strides": (one(shape=(1 << 30, 1 << 30), strides=(0, 0)), "reaches beyond"),
    "offset": (one(offset=2), "reaches beyond"),
    "negative offset": (one(offset=-1), "as a size"),
    "negative stride": (one(strides=(-1,)), "as a size"),
    "too few strides": (one(strides=()), "has shape .* and strides"),
    "unknown storage": (one(kind="QInt8Storage"), "of the kind torch.QInt8Storage"),
    "wrong type of key": (files.zip_file({}, files.program(b"}" + b")" + b"Ns")), "as a str"),
    "a key that takes forever": (
        files.zip_file({}, files.program(b"})" + b"q\x00h\x00\x86" * 40 + b"Ns")),
        "uses a tuple as a str",
    ),
    "a memo out of nowhere": (files.zip_file({}, files.program(b"h\x07")), "cannot be read"),
    "a memo of terabytes": (
        files.zip_file({}, files.program(b"}r\xff\xff\xff\xff" + b"h\x07")),
        "cannot be read",
    ),
    "a string of terabytes": (
        files.zip_file({}, b"\x80\x04\x8d" + (1 << 42).to_bytes(8, "little") + b"x."),
        "expected 4398046511104 bytes",
    ),
    "endless": (files.zip_file({}, files.program(b"N0" * (1 << 18))), "asks for POP"),
    "very long": (files.zip_file({}, files.program(b"}" * (1 << 19))), "far longer than any list"),
    "an instance": (files.zip_file({}, files.program(b"(cos\nsystem\no")), "asks for OBJ"),
    "a new object": (files.zip_file({}, b"\x80\x02cos\nsystem\n)\x81."), "asks for NEWOBJ"),
    "an extension": (files.zip_file({}, b"\x80\x02\x82\x01."), "asks for EXT1"),
    "a persistent text": (files.zip_file({}, b"P1\n."), "asks for PERSID"),
}


@pytest.mark.parametrize("case", WRONG)
def test_damage_is_told(tmp_path: Path, case: str) -> None:
    content, expected = WRONG[case]
    with pytest.raises(CheckpointError, match=expected):
        load(tmp_path, content)


@pytest.mark.parametrize("write", [files.zip_file, files.legacy_file])
def test_files_cut_short_at_any_place(tmp_path: Path, write: Any) -> None:
    content = write(TENSORS)
    for end in range(0, len(content), 7):
        with pytest.raises(CheckpointError, match="cannot be read as a file of tensors"):
            load(tmp_path, content[:end])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none.bin does not exist"):
        map_pickle(tmp_path / "none.bin", CheckpointError)
