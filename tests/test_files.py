"""Files of arrays: what is written comes back, and nothing is ever half-written."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save, save_file

from minisplade.errors import CheckpointError, IndexFormatError, InputError
from minisplade.files import (
    check_target,
    map_safetensors,
    read_arrays,
    replacing,
    safetensors_parts,
    write_arrays,
)

ARRAYS: dict[str, NDArray[Any]] = {
    "F32": np.array([[1.5, -2.0]], np.float32),
    "F16": np.array([0.5], np.float16),
    "I64": np.array([1 << 40], np.int64),
    "I32": np.zeros((2, 0), np.int32),
    "U8": np.array([1, 255], np.uint8),
}


def raw_safetensors(header: object, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # as every writer does, so that content starts aligned
    return len(text).to_bytes(8, "little") + text + content


def test_arrays_come_back(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", ARRAYS, "test", 2, {"words": "é 😀"})
    arrays, metadata = read_arrays(tmp_path / "a", "test", 2)
    assert metadata == {"format": "test", "version": "2", "words": "é 😀"}
    independent = load_file(tmp_path / "a")
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
        np.testing.assert_array_equal(independent[name], array)


def test_files_are_those_of_the_library() -> None:
    views = {"big-endian": np.arange(6, dtype=">i4"), "every second": np.arange(9)[::2]}
    arrays = {**ARRAYS, **views, "read-only": np.frombuffer(b"abcd", np.uint16)}
    whole = b"".join(safetensors_parts(arrays, {"a": "b"}))
    native = {name: a.astype(a.dtype.newbyteorder("=")) for name, a in arrays.items()}
    expected = save({name: np.ascontiguousarray(a) for name, a in native.items()}, {"a": "b"})
    head = 8 + int.from_bytes(whole[:8], "little")
    assert json.loads(whole[8:head]) == json.loads(expected[8 : -len(whole[head:])])
    assert whole[head:] == expected[-len(whole[head:]) :]
    assert head % 8 == 0


def test_arrays_that_start_at_odd_addresses(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    content = b"\7" + np.array([1.5, 2.5], "<f4").tobytes()
    (tmp_path / "odd").write_bytes(raw_safetensors(header, content))
    arrays, dtypes, _ = map_safetensors(tmp_path / "odd", CheckpointError)
    assert arrays["b"].tolist() == [1.5, 2.5]
    assert arrays["b"].flags.aligned
    assert dtypes == {"a": "U8", "b": "F32"}


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a safetensors file, or is cut short or damaged"),
        (b"once upon a time there was a text", "is not a safetensors file"),
        (raw_safetensors({"a": ENTRY}, bytes(7)), "is not a safetensors file"),
        (raw_safetensors({"a": ENTRY}, bytes(9)), "is not a safetensors file"),
        (raw_safetensors({"a": ENTRY}, bytes(8))[:30], "is not a safetensors file"),
        (raw_safetensors({"a": {**ENTRY, "shape": [3]}}, bytes(8)), "is not a safetensors file"),
        (raw_safetensors({"a": {**ENTRY, "dtype": "F33"}}, bytes(8)), "is not a safetensors file"),
        (raw_safetensors(b"{not json", bytes(8)), "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run `git lfs pull`"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(CheckpointError, match=expected):
        map_safetensors(tmp_path / "bad", CheckpointError)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(IndexFormatError, match="none does not exist"):
        map_safetensors(tmp_path / "none", IndexFormatError)
    with pytest.raises(IndexFormatError, match="is a folder; expected a safetensors file"):
        map_safetensors(tmp_path, IndexFormatError)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, "is not a test file"),
        ({"format": "other", "version": "1"}, "is not a test file"),
        ({"format": "test"}, "version unknown, this minisplade reads up to 1"),
        ({"format": "test", "version": "2"}, "version 2, this minisplade reads up to 1; upgrade"),
        ({"format": "test", "version": "-1"}, "version -1"),
    ],
)
def test_formats_of_others(tmp_path: Path, metadata: dict[str, str], expected: str) -> None:
    save_file({"a": np.zeros(1)}, tmp_path / "a", metadata)
    with pytest.raises(IndexFormatError, match=expected):
        read_arrays(tmp_path / "a", "test", 1)


def test_replacing_makes_folders_and_respects_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "new" / "deep" / "a") as file:
            file.write(b"done")
    finally:
        os.umask(before)
    path = tmp_path / "new" / "deep" / "a"
    assert path.read_bytes() == b"done"
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_replacing_keeps_the_old_file_on_failure(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error), replacing(tmp_path / "a") as file:
        file.write(b"half of the n")
        raise error
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_replacing_keeps_the_old_file_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_arrays(tmp_path / "a", ARRAYS, "test", 1, {})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_replacing_writes_through_links(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "a")
    with replacing(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "far" / "a").read_bytes() == b"new"


def test_targets_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for check in (check_target, lambda path: replacing(path).__enter__()):
        with pytest.raises(InputError, match="is a folder; expected the name of a file"):
            check(tmp_path)
        with pytest.raises(InputError, match="pipe is not a regular file"):
            check(tmp_path / "pipe")
    with pytest.raises(InputError, match="there is no folder .*none"):
        check_target(tmp_path / "none" / "a")

    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    check_target(tmp_path / "a")
    assert os.listdir(tmp_path) == ["pipe"]
    # By hand, because nothing is forbidden to root, which tests may run as.
    monkeypatch.setattr("minisplade.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(InputError, match="a cannot be written: Permission denied"):
        check_target(tmp_path / "a")
