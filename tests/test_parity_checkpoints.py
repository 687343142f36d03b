"""Live comparison of every architecture, head and layout with the libraries that made them.

`make parity` runs it. Random weights of several depths, widths and types, written by transformers.
"""

import json
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, TEXTS
from layouts import ROWS

from minisplade import CrossEncoder, SparseEncoder
from minisplade.models import load_model
from minisplade.runtime import KERNEL_PATHS

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("default"),  # of the reference's own imports
]

LOGITS_TOLERANCE = 2e-5
WEIGHTS_TOLERANCE = 1e-5

V = 90
NORMS = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
DEEP = {"num_hidden_layers": 6, "hidden_size": 32, "intermediate_size": 20}
WIDE = {"num_hidden_layers": 1, "hidden_size": 192, "num_attention_heads": 6}
SHAPES: list[dict[str, Any]] = [{}, DEEP, WIDE]
KINDS = ["bert", "distilbert", "roberta", "xlm-roberta", "camembert", "albert", "modernbert", "gte"]
MODELS: list[tuple[str, dict[str, Any]]] = [
    *product(KINDS, SHAPES),
    ("modernbert", NORMS),
    ("modernbert", {"global_attn_every_n_layers": 1}),
    ("modernbert", {"local_attention": 2, "num_hidden_layers": 4}),
    ("gte", {"type_vocab_size": 0}),
    ("gte", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    ("albert", {"hidden_act": "gelu", "embedding_size": 24}),
    ("roberta", {"pad_token_id": 7, "type_vocab_size": 2, "max_position_embeddings": 48}),
]
DTYPES = ["float32", "float64", "float16", "bfloat16"]


@pytest.mark.parametrize("number", range(len(MODELS)))
@pytest.mark.parametrize("tied", [True, False])
def test_logits(number: int, tied: bool, tmp_path: Path) -> None:
    """Hidden states and logits of padded batches, and weights, in the type that the file has."""
    import torch
    from random_models import random_model
    from transformers import AutoModelForMaskedLM

    kind, settings = MODELS[number]
    dtype = getattr(torch, DTYPES[(number + tied) % len(DTYPES)])
    model = random_model(kind, V, seed=number, tie_word_embeddings=tied, **settings).to(dtype)
    model.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.is_tied == tied
    exact = AutoModelForMaskedLM.from_pretrained(str(tmp_path), dtype=torch.float64)
    padding = ours.config.pad_token_id
    ids = np.random.default_rng(number).integers(8, V, (4, 40)).astype(np.int32)
    for row, length in enumerate([40, 23, 9, 1]):
        ids[row, length:] = padding
    mask = np.arange(40) < np.array([[40], [23], [9], [1]])
    given = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}
    with torch.no_grad():
        expected = exact(**given)
        states = exact.base_model(**given).last_hidden_state.numpy()
    gap = np.abs(ours.hidden_states(ids, mask) - states)[mask].max()
    assert gap <= LOGITS_TOLERANCE
    gap = np.abs(ours.logits(ids, mask) - expected.logits.numpy())[mask].max()
    assert gap <= LOGITS_TOLERANCE

    assert_weights(tmp_path, exact)


def assert_weights(folder: Path, exact: Any) -> None:
    """Compare SPLADE weights on every kernel path with those of a float64 model, text by text."""
    import torch

    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "bert" / name, folder)
    fastest = SparseEncoder(folder)
    paths = ["reference"] if fastest.kernel_path == "reference" else list(KERNEL_PATHS)
    tokens = [fastest.tokenize([text])["input_ids"] for text in TEXTS]
    with torch.no_grad():
        logits = [exact(input_ids=torch.tensor(ids)).logits[0].numpy() for ids in tokens]
    expected = np.log1p(np.maximum([of_text.max(axis=0) for of_text in logits], 0))
    for path in paths:
        found = SparseEncoder(folder, kernel_path=path).encode(TEXTS).toarray()
        assert np.abs(found - expected).max() <= WEIGHTS_TOLERANCE, path


# What sentence-transformers does not know, or takes for something else.
NOT_THERE = {
    "BAAI/bge-m3": "dense vectors",
    "opensearch doc-v3-gte": "code of the model's own",
    "opensearch multilingual-v1": "no routes without modules.json",
    "opensearch doc-v2-distill": "no routes without modules.json",
    "a router without its first folder": "insists on that",
}


@pytest.mark.parametrize("row", [row for row in ROWS if row not in NOT_THERE])
def test_layouts(row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same folder in both libraries, and what we write of it in theirs again."""
    ROWS[row](tmp_path / "model")
    if (tmp_path / "model" / "vocab.json").exists():  # they would read beyond the last position
        config = {"max_seq_length": 40}
        (tmp_path / "model" / "sentence_roberta_config.json").write_text(json.dumps(config))
    ours = SparseEncoder(tmp_path / "model")
    ours.save_pretrained(tmp_path / "saved")
    monkeypatch.chdir(tmp_path / "model")  # where they look for a table that is named in a config
    for folder in (tmp_path / "model", tmp_path / "saved"):
        assert_same(ours, folder)


def assert_same(ours: SparseEncoder, folder: Path) -> None:
    import torch
    from sentence_transformers import SparseEncoder as Reference

    theirs = Reference(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    for task in ("encode", "encode_query", "encode_document"):
        expected = getattr(theirs, task)(TEXTS, convert_to_sparse_tensor=False).numpy()
        found = getattr(ours, task)(TEXTS).toarray()
        scale = max(1.0, float(expected.max()) / 4)
        assert np.abs(found - expected).max() <= WEIGHTS_TOLERANCE * scale, (folder.name, task)


def test_gte_by_the_class_of_transformers(tmp_path: Path) -> None:
    """Reads a GTE with the names of its own files, after its config.json is translated."""
    ROWS["opensearch doc-v3-gte"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    theta = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    ours = SparseEncoder(tmp_path)
    config |= {"model_type": "gte", "architectures": ["GteForMaskedLM"], "rope_parameters": theta}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_same(ours, tmp_path)


def test_gte_scaled_by_the_published_formula(tmp_path: Path) -> None:
    """Its NTK-aware scaling is a plain rotation with other frequencies."""
    import torch
    from random_models import random_model

    model = random_model("gte", V, seed=4)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "gte", "rope_scaling": {"type": "ntk", "factor": 2.0}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    size, base = 6, config["rope_parameters"]["rope_theta"]
    scaled = (2 * base) ** (-torch.arange(0, size, 2) / size) / 2 ** (2 / size)
    exact = model.double()
    exact.gte.rotary_emb.inv_freq = scaled
    ids = np.arange(8, 38, dtype=np.int32)[None]
    with torch.no_grad():
        expected = exact(input_ids=torch.tensor(ids)).logits.numpy()
    found = load_model(tmp_path).logits(ids, ids > 0)
    assert np.abs(found - expected).max() <= LOGITS_TOLERANCE


def test_token_weights_of_bge_m3_by_its_published_formula(tmp_path: Path) -> None:
    """The authors' code in a few lines of torch, over transformers' encoder."""
    import torch
    from transformers import AutoModel

    ROWS["BAAI/bge-m3"](tmp_path)
    ours = SparseEncoder(tmp_path)
    state = torch.load(tmp_path / "sparse_linear.pt", weights_only=True)
    body = AutoModel.from_pretrained(str(tmp_path), add_pooling_layer=False).float()
    for text in TEXTS:
        ids = torch.tensor([ours.tokenize([text])["input_ids"][0].tolist()])
        with torch.no_grad():
            states = body(input_ids=ids).last_hidden_state[0]
        weights = torch.relu(states @ state["weight"].float().T + state["bias"].float())[:, 0]
        expected: dict[int, float] = {}
        for token, weight in zip(ids[0].tolist(), weights.tolist()):
            if token > 3 and weight > expected.get(token, 0):
                expected[token] = weight
        for path in KERNEL_PATHS:
            found = SparseEncoder(tmp_path, kernel_path=path).encode(text).to_dict()
            assert found == pytest.approx(expected, abs=WEIGHTS_TOLERANCE)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "xlm-roberta", "camembert"])
@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("labels", [1, 4])
def test_cross_encoders(kind: str, shape: int, labels: int, tmp_path: Path) -> None:
    import torch
    from random_models import random_model
    from sentence_transformers import CrossEncoder as Reference

    name = "roberta" if kind in ("roberta", "xlm-roberta", "camembert") else "bert"
    for path in (GOLDEN / "pairs" / name).glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    size = 95 if name == "roberta" else 90
    settings = {"num_labels": labels, **SHAPES[shape]}
    random_model(kind, size, shape, "SequenceClassification", **settings).save_pretrained(tmp_path)
    theirs = Reference(str(tmp_path), device="cpu", local_files_only=True)
    pairs = list(product(TEXTS, TEXTS))
    expected = theirs.predict(pairs, activation_fn=torch.nn.Identity())
    scores = theirs.predict(pairs)
    for path in KERNEL_PATHS:
        ours = CrossEncoder(tmp_path, kernel_path=path)
        found = ours.predict(pairs, activation="identity")
        assert np.abs(found - expected).max() <= LOGITS_TOLERANCE
        assert np.abs(ours.predict(pairs) - scores).max() <= WEIGHTS_TOLERANCE
    ours.save_pretrained(tmp_path / "saved")
    again = Reference(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    assert np.abs(again.predict(pairs) - scores).max() <= WEIGHTS_TOLERANCE
    if labels == 1:
        texts = [text for text in TEXTS if text]
        best = theirs.rank(TEXTS[2], texts, top_k=3, return_documents=True)
        for entry, wanted in zip(ours.rank(TEXTS[2], texts, top_k=3, return_documents=True), best):
            assert entry == {**wanted, "score": pytest.approx(wanted["score"], abs=1e-5)}
