"""Models written anew, and checked against the vectors that are stored with them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, TEXTS
from layouts import ROWS
from safetensors.numpy import load_file, save_file

from minisplade import CheckpointError, CrossEncoder, InputError, SparseEncoder
from minisplade.cli import main
from minisplade.conversion import EXPECTED_VECTORS, convert_model, verify_model
from minisplade.runtime import KERNEL_PATHS, choose_kernel_path


@pytest.mark.parametrize("row", ROWS)
def test_a_converted_model_is_the_same_and_right(row: str, tmp_path: Path) -> None:
    ROWS[row](tmp_path / "old")
    assert convert_model(tmp_path / "old", tmp_path / "new") == 0
    assert not list((tmp_path / "new").rglob("*.bin"))
    checks = list(verify_model(tmp_path / "new"))
    assert checks and all(check.is_right for check in checks)
    old, new = SparseEncoder(tmp_path / "old"), SparseEncoder(tmp_path / "new")
    assert new.encode_query(TEXTS) == old.encode_query(TEXTS)
    assert new.encode_document(TEXTS) == old.encode_document(TEXTS)


def test_every_kernel_path_is_verified(tmp_path: Path) -> None:
    convert_model(GOLDEN / "bert", tmp_path / "bert")
    paths = list(KERNEL_PATHS)[: list(KERNEL_PATHS).index(choose_kernel_path()) + 1]
    assert [check.kernel_path for check in verify_model(tmp_path / "bert")] == paths
    convert_model(GOLDEN / "albert", tmp_path / "albert")
    assert [check.kernel_path for check in verify_model(tmp_path / "albert")] == ["reference"]


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_cross_encoders(name: str, tmp_path: Path) -> None:
    assert convert_model(GOLDEN / "pairs" / name, tmp_path) == 0
    checks = list(verify_model(tmp_path))
    assert len(checks) == len(KERNEL_PATHS) or choose_kernel_path() != "screened"
    assert all(check.is_right for check in checks)
    old, new = CrossEncoder(GOLDEN / "pairs" / name), CrossEncoder(tmp_path)
    pairs = [(TEXTS[2], text) for text in TEXTS]
    assert np.array_equal(new.predict(pairs), old.predict(pairs))
    assert new.activation == old.activation and new.max_length == old.max_length


def test_half_precision_changes_little_and_is_told(tmp_path: Path) -> None:
    gap = convert_model(GOLDEN / "bert", tmp_path / "new", float16=True)
    assert 0 < gap < 0.02
    assert all(check.is_right for check in verify_model(tmp_path / "new"))


def test_damage_is_found(tmp_path: Path) -> None:
    convert_model(GOLDEN / "bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.decoder.bias"] + 1e-3
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    checks = list(verify_model(tmp_path))
    assert not any(check.is_right for check in checks)
    assert all(1e-4 < check.largest_difference < 1e-2 for check in checks)
    assert main(["models", "verify", str(tmp_path)]) == 1


def test_real_weights_against_the_reference(encoder: SparseEncoder) -> None:
    golden = GOLDEN / "splade_tiny.json"
    checks = list(verify_model(encoder.folder, golden))
    assert all(check.is_right and check.num_vectors == 13 for check in checks)


def test_what_has_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already and not an empty folder"):
        convert_model(GOLDEN / "bert", tmp_path)
    with pytest.raises(InputError, match="is there already"):
        convert_model(GOLDEN / "bert", tmp_path / "note.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "is not a list of texts"),
        ({}, "is not a list of texts"),
        ([5], "has a row without text and weights"),
        ([{"text": "a"}], "has a row without text and weights"),
        ([{"text": "a", "weights": [1]}], "has a row without text and weights"),
        ([{"text": "a", "weights": {"x": 1}}], "has a row without text and weights"),
        ([{"text": "a", "weights": {"5000": 1}}], "terms that the model does not know"),
        ([{"text": "a", "weights": {"-1": 1}}], "terms that the model does not know"),
    ],
)
def test_vectors_that_are_something_else(tmp_path: Path, rows: Any, expected: str) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with pytest.raises(CheckpointError, match=expected):
        list(verify_model(GOLDEN / "bert", tmp_path / "rows.json"))
    with pytest.raises(CheckpointError, match=f"{EXPECTED_VECTORS} does not exist"):
        list(verify_model(GOLDEN / "bert"))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(tmp_path / "new")
    assert main(["models", "convert", str(GOLDEN / "roberta"), new]) == 0
    assert "weights of vectors differ by 0.0e+00 at most" in capsys.readouterr().err
    assert main(["models", "verify", new]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["kernel_path"] == "reference" and all(row["right"] for row in rows)
    assert main(["models", "inspect", new]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["use"] == "SparseEncoder" and report["tokenizer"].startswith("BPE, 95 tokens")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inspect"], "inspect needs a name or a folder"),
        (["verify"], "verify needs a name or a folder"),
        (["convert", "a"], "convert needs two folders"),
        (["inspect", "a", "b"], "inspect takes one name"),
        (["pull", "a", "--float16"], "--float16 goes with convert"),
        (["inspect", "a", "--vectors", "b"], "--vectors goes with verify"),
    ],
)
def test_wrong_usage(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["models", *arguments])
    assert raised.value.code == 2
    assert expected in capsys.readouterr().err


def test_texts_of_a_terminal_are_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["models", "inspect", str(GOLDEN / "bert")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["use", "SparseEncoder"]
    rows = GOLDEN / "splade_tiny.json"
    assert main(["models", "verify", "splade-tiny", "--vectors", str(rows)]) == 0
    assert "13 vectors, largest difference" in capsys.readouterr().out
