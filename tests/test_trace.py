"""Traces: every stage equals what the model computes when it is not watched."""

import math
from dataclasses import replace
from pathlib import Path

import naive
import numpy as np
import pytest
from conftest import CHECKPOINTS, GOLDEN
from numpy.typing import NDArray

from minisplade import InputError, SparseEncoder
from minisplade.models import heads

Array = NDArray[np.float64]
ROOT = Path(__file__).parents[1]
LINEAR = "attention.value", "attention.output", "feed_forward.up", "feed_forward.down"
TEXT = "the cat sat on the mat"


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_stages_are_the_models_own(checkpoint: str) -> None:
    encoder = SparseEncoder(GOLDEN / checkpoint, kernel_path="reference")
    terms = [term for term, _ in encoder.decode(encoder.encode(TEXT))]
    trace = encoder.trace(TEXT, terms=terms)
    ids = np.array([[token.term_id for token in trace.tokens]], np.int32)
    mask = np.ones(ids.shape, bool)
    np.testing.assert_array_equal(
        trace.hidden_states[-1], encoder.model.hidden_states(ids, mask)[0]
    )
    logits = encoder.model.logits(ids, mask)
    chosen = [term.term_id for term in trace.terms]
    np.testing.assert_array_equal(trace.logits, logits[0][:, chosen])
    weights = naive.splade_pool(logits, mask, encoder.strategy, encoder.activation)[0, chosen]
    assert [term.weight for term in trace.terms] == pytest.approx(weights.tolist(), abs=1e-5)
    assert [term.term for term in trace.terms] == terms
    for place, term in enumerate(trace.terms):
        assert trace.logits[term.position, place] == term.logit == trace.logits[:, place].max()


def test_shapes_and_stages(encoder: SparseEncoder) -> None:
    trace = encoder.trace(TEXT)
    assert trace.hidden_states.shape == (3, 8, 128)
    assert trace.attention.shape == (2, 2, 8, 8)
    assert trace.lens.shape == trace.ranks.shape == (3, 8, 12)
    assert trace.norms.shape == (3, 8)
    shapes = {s.name: {n: a.shape for n, a in s.arrays.items()} for s in trace.stages}
    count = (len(trace.vector),)
    assert shapes == {
        "text to tokens": {"input_ids": (8,)},
        "tokens to vectors": {"hidden_states": (8, 128)},
        "layer 1": {"attention": (2, 8, 8), "hidden_states": (8, 128), "norms": (8,)},
        "layer 2": {"attention": (2, 8, 8), "hidden_states": (8, 128), "norms": (8,)},
        "vectors to logits": {"logits": (8, 12)},
        "logits to weights": {"maxima": (12,), "weights": (12,)},
        "the sparse vector": {"term_ids": count, "weights": count},
    }
    layers = [stage.arrays["norms"] for stage in trace.stages if "norms" in stage.arrays]
    np.testing.assert_array_equal(np.stack(layers), trace.norms[1:])
    maxima = next(stage.arrays["maxima"] for stage in trace.stages if "maxima" in stage.arrays)
    assert maxima.tolist() == [term.logit for term in trace.terms]
    for stage in trace.stages:
        for place in stage.functions:
            path, name = place.split(": ")
            assert f"def {name.split('.')[-1]}(" in (ROOT / path).read_text(encoding="utf-8")


def test_attention_is_that_of_the_layer(encoder: SparseEncoder) -> None:
    """The layer's output is that of its weights, mixed by the attention that is shown."""
    trace = encoder.trace("The bank raised interest rates.")
    np.testing.assert_allclose(trace.attention.sum(axis=-1), 1, atol=1e-5)
    params = {name: w.astype(float) for name, w in encoder.model.params.items()}
    for layer in range(2):
        x, block = trace.hidden_states[layer].astype(float), f"layers.{layer}"
        value, out, up, down = (
            (params[f"{block}.{name}.weight"], params[f"{block}.{name}.bias"]) for name in LINEAR
        )
        values = (x @ value[0].T + value[1]).reshape(len(x), 2, 64)
        mixed = np.einsum("hts,shk->thk", trace.attention[layer], values).reshape(x.shape)
        x = normalised(x + mixed @ out[0].T + out[1], params, f"{block}.attention_norm")
        inner = x @ up[0].T + up[1]
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = normalised(x + inner @ down[0].T + down[1], params, f"{block}.feed_forward_norm")
        np.testing.assert_allclose(trace.hidden_states[layer + 1], x, atol=2e-5)


def normalised(x: Array, params: dict[str, Array], name: str) -> Array:
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-12)
    return x * params[f"{name}.weight"] + params[f"{name}.bias"]


def test_the_lens_and_its_ranks(encoder: SparseEncoder) -> None:
    trace = encoder.trace(TEXT, terms=["mat", "zebra"])
    for step, states in enumerate(trace.hidden_states):
        model = encoder.model
        transformed = heads.mlm_transform(model.params, model.config, states[None])
        logits = heads.mlm_logits(model.params, transformed)[0]
        assert trace.num_positive[step] == np.count_nonzero(logits > 0)
        for place, term in enumerate(trace.terms):
            np.testing.assert_array_equal(trace.lens[step, :, place], logits[:, term.term_id])
            for token in range(len(trace.tokens)):
                ranked = np.argsort(-logits[token], kind="stable")
                assert ranked[trace.ranks[step, token, place] - 1] == term.term_id


def test_chosen_terms(encoder: SparseEncoder) -> None:
    trace = encoder.trace(TEXT, terms=["zebra", "cat"])
    zebra, cat = trace.terms
    assert (zebra.term, zebra.weight, zebra.is_expansion) == ("zebra", 0, True)
    assert zebra.logit < 0
    assert (cat.term, cat.is_expansion, trace.source(cat)) == ("cat", False, "cat")
    weights = encoder.encode(TEXT).to_dict(encoder.terms)
    assert cat.weight == pytest.approx(weights["cat"], abs=1e-5)
    assert encoder.trace(TEXT, terms=[]).lens.shape == (3, 8, 0)
    with pytest.raises(InputError, match="term 'zebr' is not in the vocabulary; near it: zebra"):
        encoder.trace(TEXT, terms=["zebr"])


def test_prompt_and_truncation(encoder: SparseEncoder) -> None:
    trace = encoder.trace(TEXT, prompt="query: ", max_seq_length=6)
    assert [t.string for t in trace.tokens] == ["[CLS]", "query", ":", "the", "cat", "[SEP]"]
    assert trace.vector == encoder.encode(TEXT, prompt="query: ", max_seq_length=6)
    with pytest.raises(InputError, match="text 0 is int"):
        encoder.trace(5)  # type: ignore[arg-type]
    assert encoder.trace("").hidden_states.shape == (3, 2, 128)


@pytest.mark.parametrize("checkpoint", ["bert", "modernbert", "albert"])
def test_a_step_is_what_a_model_of_so_many_layers_gives(checkpoint: str) -> None:
    encoder = SparseEncoder(GOLDEN / checkpoint)
    model, trace = encoder.model, encoder.trace(TEXT)
    ids = np.array([[token.term_id for token in trace.tokens]], np.int32)
    for layers, states in enumerate(trace.hidden_states):
        shorter = replace(model, config=replace(model.config, num_layers=layers))
        expected = shorter.hidden_states(ids, np.ones(ids.shape, bool))[0]
        np.testing.assert_array_equal(states, expected)
