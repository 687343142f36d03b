"""Every layer against outputs that transformers and sentence-transformers computed.

scripts/make_golden.py writes the files. The mutants at the end show that the comparison would
notice the mistakes that BERT implementations usually have.
"""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKPOINTS, GOLDEN, TEXTS
from safetensors.numpy import load_file

from minisplade import SparseEncoder, functional
from minisplade.arrays import BoolArray, FloatArray
from minisplade.models import MaskedLanguageModel, bert, heads

LOGITS_TOLERANCE = 2e-5
WEIGHTS_TOLERANCE = 1e-5


def errors(model: MaskedLanguageModel, checkpoint: str) -> dict[str, float]:
    """Return the largest absolute difference from the reference, at tokens, by stage."""
    expected = load_file(GOLDEN / checkpoint / "expected.safetensors")
    mask = expected["attention_mask"].astype(bool)
    states = model.hidden_states(expected["input_ids"], mask)
    logits = model.logits(expected["input_ids"], mask)
    return {
        "hidden_states": float(np.abs(states - expected["hidden_states"])[mask].max()),
        "logits": float(np.abs(logits - expected["logits"])[mask].max()),
    }


@pytest.fixture(params=CHECKPOINTS)
def checkpoint(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_there_are_checkpoints_of_each_architecture_and_dtype() -> None:
    assert CHECKPOINTS == [
        "albert",
        "bert",
        "bert-bfloat16",
        "bert-float16",
        "bert-untied",
        "distilbert",
        "distilbert-untied",
        "gte",
        "modernbert",
        "modernbert-biased",
        "roberta",
        "xlm-roberta",
    ]


def test_hidden_states_and_logits(checkpoint: str) -> None:
    model = SparseEncoder(GOLDEN / checkpoint).model
    found = errors(model, checkpoint)
    assert found["hidden_states"] < LOGITS_TOLERANCE
    assert found["logits"] < LOGITS_TOLERANCE


def test_token_ids(checkpoint: str) -> None:
    expected = load_file(GOLDEN / checkpoint / "expected.safetensors")
    tokens = SparseEncoder(GOLDEN / checkpoint).tokenize(TEXTS[: len(expected["input_ids"])])
    assert np.array_equal(tokens["input_ids"], expected["input_ids"])
    assert np.array_equal(tokens["attention_mask"], expected["attention_mask"])


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_weights(checkpoint: str, batch_size: int) -> None:
    expected = load_file(GOLDEN / checkpoint / "expected.safetensors")["weights"]
    weights = SparseEncoder(GOLDEN / checkpoint).encode(TEXTS, batch_size=batch_size).toarray()
    # Sums over 40 tokens are larger than maxima, and so is their rounding.
    scale = max(1.0, float(expected.max()) / 4)
    assert np.abs(weights - expected).max() < WEIGHTS_TOLERANCE * scale


def test_real_weights_and_texts(encoder: SparseEncoder) -> None:
    for row in json.loads((GOLDEN / "splade_tiny.json").read_text(encoding="utf-8")):
        expected = np.zeros(encoder.get_embedding_dimension(), dtype=np.float32)
        expected[[int(term_id) for term_id in row["weights"]]] = list(row["weights"].values())
        found = encoder.encode(row["text"]).toarray()
        assert np.abs(found - expected).max() < WEIGHTS_TOLERANCE, row["text"]


def test_similarities_that_the_author_of_the_model_prints(encoder: SparseEncoder) -> None:
    vectors = encoder.encode(
        ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    )
    printed = [[39.7253, 7.1662, 0.0], [7.1662, 27.0255, 0.1385], [0.0, 0.1385, 26.3539]]
    assert encoder.similarity(vectors, vectors) == pytest.approx(np.array(printed), abs=1e-3)


def test_modernbert_as_older_files_describe_it(tmp_path: Path) -> None:
    """Thetas and the order of local layers under the keys that most published models have."""
    shutil.copytree(GOLDEN / "modernbert", tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    bases = {kind: rope["rope_theta"] for kind, rope in config.pop("rope_parameters").items()}
    layers = config.pop("layer_types")
    assert layers == ["full_attention", "sliding_attention"]
    assert bases["full_attention"] != bases["sliding_attention"]
    config |= {"global_attn_every_n_layers": 2, "position_embedding_type": "absolute"}
    config |= {"global_rope_theta": bases["full_attention"]}
    config |= {"local_rope_theta": bases["sliding_attention"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert errors(SparseEncoder(tmp_path).model, "modernbert")["logits"] < LOGITS_TOLERANCE
    swapped = {"global_rope_theta": bases["sliding_attention"], "local_rope_theta": 1e9}
    (tmp_path / "config.json").write_text(json.dumps(config | swapped))
    assert errors(SparseEncoder(tmp_path).model, "modernbert")["logits"] > 5 * LOGITS_TOLERANCE


# From here on: the checks above must fail for models that are wrong.


def tanh_gelu(x: FloatArray) -> FloatArray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def leaky_attention(
    q: FloatArray, k: FloatArray, v: FloatArray, mask: BoolArray, window: int | None
) -> tuple[FloatArray, FloatArray]:
    return functional.attention(q, k, v, np.ones_like(mask), window)


def biased_variance_lost(x: FloatArray, w: FloatArray, b: FloatArray, eps: float) -> FloatArray:
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + eps) * w + b


@pytest.mark.parametrize(
    ("room", "name", "wrong"),
    [
        (bert, "gelu", tanh_gelu),
        (heads, "gelu", tanh_gelu),
        (bert, "attention", leaky_attention),
        (bert, "layer_norm", biased_variance_lost),
    ],
)
def test_a_wrong_layer_is_noticed(
    monkeypatch: pytest.MonkeyPatch, room: object, name: str, wrong: object
) -> None:
    model = SparseEncoder(GOLDEN / "bert").model
    monkeypatch.setattr(room, name, wrong)
    assert errors(model, "bert")["logits"] > 5 * LOGITS_TOLERANCE


def test_a_missing_token_type_embedding_is_noticed() -> None:
    model = SparseEncoder(GOLDEN / "bert").model
    without = replace(model, config=replace(model.config, num_token_types=0))
    assert errors(without, "bert")["hidden_states"] > 5 * LOGITS_TOLERANCE


def test_a_decoder_tied_by_mistake_is_noticed() -> None:
    model = SparseEncoder(GOLDEN / "bert-untied").model
    tied = {**model.params, "head.decoder.weight": model.params["embeddings.word.weight"]}
    found = errors(replace(model, params=tied), "bert-untied")
    assert found["hidden_states"] < LOGITS_TOLERANCE
    assert found["logits"] > 5 * LOGITS_TOLERANCE


def test_positions_off_by_one_are_noticed() -> None:
    model = SparseEncoder(GOLDEN / "distilbert").model
    shifted = np.roll(model.params["embeddings.position.weight"], 1, axis=0)
    params = {**model.params, "embeddings.position.weight": shifted}
    found = errors(replace(model, params=params), "distilbert")
    assert found["hidden_states"] > 5 * LOGITS_TOLERANCE
