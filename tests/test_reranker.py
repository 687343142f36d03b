"""Scores of pairs against those of sentence-transformers, and what CrossEncoder promises."""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, TEXTS
from layouts import pickle_weights, to_vocabulary
from safetensors.numpy import load_file

from minisplade import CheckpointError, CrossEncoder, InputError
from minisplade.runtime import KERNEL_PATHS, choose_kernel_path

PATHS = list(KERNEL_PATHS)[: list(KERNEL_PATHS).index(choose_kernel_path()) + 1]
PAIRS = list(product(TEXTS, TEXTS))
NAMES = ["bert", "bert-one-type", "distilbert", "roberta"]


def load(name: str, **options: Any) -> CrossEncoder:
    return CrossEncoder(GOLDEN / "pairs" / name, **options)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_scores_of_the_reference(name: str, path: str) -> None:
    expected = load_file(GOLDEN / "pairs" / name / "expected.safetensors")
    encoder = load(name, kernel_path=path)
    logits = encoder.predict(PAIRS, activation="identity")
    assert logits.shape == expected["logits"].shape == ((36,) if name != "distilbert" else (36, 3))
    assert np.abs(logits - expected["logits"]).max() < 2e-5
    assert np.abs(encoder.predict(PAIRS) - expected["scores"]).max() < 1e-5
    assert float(np.ptp(logits)) > 0.05


def test_second_texts_are_of_the_second_type() -> None:
    expected = load("bert").predict(PAIRS, activation="identity")
    changed = load("bert")
    changed.model.params["embeddings.token_type.weight"] = np.zeros((2, 16), np.float32)
    assert np.abs(changed.predict(PAIRS, activation="identity") - expected).max() > 1e-3


@pytest.mark.parametrize("path", PATHS)
def test_scores_do_not_depend_on_batch_order_or_threads(path: str) -> None:
    encoder = load("bert", kernel_path=path, num_threads=1)
    together = encoder.predict(PAIRS)
    alone = np.array([encoder.predict(pair) for pair in PAIRS])
    assert np.abs(alone - together).max() < 1e-6
    backwards = load("bert", kernel_path=path, num_threads=3).predict(PAIRS[::-1], batch_size=5)
    assert np.abs(backwards[::-1] - together).max() < 1e-6
    if path != "reference":
        assert np.array_equal(alone, together) and np.array_equal(backwards[::-1], together)


def test_shapes() -> None:
    one, three = load("bert"), load("distilbert")
    assert one.predict(("a", "b")).shape == ()
    assert one.predict(["a", "b"]).shape == ()
    assert one.predict([("a", "b")]).shape == (1,)
    assert one.predict([]).shape == (0,)
    assert three.predict(("a", "b")).shape == (3,)
    assert three.predict([]).shape == (0, 3)
    shares = three.predict(PAIRS, apply_softmax=True)
    assert np.allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(shares.argmax(axis=1), three.predict(PAIRS).argmax(axis=1))


def test_rank() -> None:
    encoder = load("bert")
    documents = [*TEXTS, TEXTS[2]]
    scores = encoder.predict([("the mat", text) for text in documents])
    ranked = encoder.rank("the mat", documents)
    assert sorted(entry["corpus_id"] for entry in ranked) == list(range(len(documents)))
    assert [entry["score"] for entry in ranked] == sorted(scores.tolist(), reverse=True)
    order = [entry["corpus_id"] for entry in ranked]
    assert order.index(2) + 1 == order.index(6)  # equal ones as they came
    best = encoder.rank("the mat", documents, top_k=2, return_documents=True)
    assert best == [{**entry, "text": documents[entry["corpus_id"]]} for entry in ranked[:2]]
    assert encoder.rank("the mat", []) == []
    with pytest.raises(InputError, match="gives 3 scores a pair; use predict"):
        load("distilbert").rank("a", ["b"])


def test_long_pairs_lose_the_end_of_the_longer_text() -> None:
    encoder = load("bert", max_length=12)
    cut = encoder.predict(("the cat", "on the mat " * 5_000))
    assert cut == encoder.predict(("the cat", "on the mat on the mat on the mat"))
    assert cut != encoder.predict(("the cat", "on the mat"))


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([("a", "b", "c")], "input 0 is tuple; expected two texts"),
        (["abc"], "input 0 is str; expected two texts"),
        ([("a", 5)], "text 1 is int; expected str"),
        ([("a", "b"), ("c", "\ud800")], "text 3 has the lone surrogate"),
    ],
)
def test_what_is_no_pair_is_named(inputs: Any, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load("bert").predict(inputs)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_length": 4}, "max_length is 4; this model can take 5 to 40"),
        ({"max_length": 41}, "max_length is 41"),
        ({"max_memory_mb": 0}, "max_memory_mb is 0"),
        ({"kernel_path": "fast"}, "kernel path 'fast' is unknown"),
    ],
)
def test_wrong_options(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        load("bert", **options)
    with pytest.raises(InputError, match="batch_size is 0"):
        load("bert").predict(PAIRS, batch_size=0)
    with pytest.raises(InputError, match="activation is 'tanh'; expected one of"):
        load("bert").predict(PAIRS, activation="tanh")  # type: ignore[arg-type]


def test_the_files_of_an_older_revision(tmp_path: Path) -> None:
    """A pickle and vocab.txt, as ms-marco-MiniLM-L6-v2 was published first."""
    shutil.copytree(GOLDEN / "pairs" / "bert", tmp_path, dirs_exist_ok=True)
    expected = CrossEncoder(tmp_path).predict(PAIRS, activation="identity")
    pickle_weights(tmp_path, legacy=True)
    to_vocabulary(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["sbert_ce_default_activation_function"] = IDENTITY
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert np.array_equal(CrossEncoder(tmp_path).predict(PAIRS), expected)


IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "sigmoid"),
        ({"sbert_ce_default_activation_function": IDENTITY}, "identity"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, "identity"),
        ({"sentence_transformers": {"version": "4.0"}}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.Sigmoid"}}, "sigmoid"),
    ],
)
def test_the_model_says_what_scores_go_through(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    assert with_config(tmp_path, change).activation == expected
    assert load("distilbert").activation == "identity"


def with_config(folder: Path, change: dict[str, Any]) -> CrossEncoder:
    shutil.copytree(GOLDEN / "pairs" / "bert", folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config.pop("sentence_transformers", None)
    (folder / "config.json").write_text(json.dumps(config | change))
    return CrossEncoder(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, "activation 'torch.nn.Ta"),
        ({"architectures": ["BertForMaskedLM"]}, "needs the classification head of a BertForSeq"),
        ({"architectures": None}, "needs the classification head"),
        ({"model_type": "albert"}, "classification head of a BertForSequenceClassification or"),
        ({"id2label": {"0": "a", "1": "b"}}, r"classifier.weight .* has shape \(1, 16\)"),
    ],
)
def test_models_that_are_no_cross_encoders(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(CheckpointError, match=expected):
        with_config(tmp_path, change)
