"""Compiled layers against their plain twins in float64, at sizes that fill no tile."""

import cmath
import math
from typing import NamedTuple

import naive
import numpy as np
import pytest
from scipy import special
from uncompiled import assert_passes_uncompiled

from minisplade import functional
from minisplade.arrays import FloatArray
from minisplade.kernels import attention, layers, rotary
from minisplade.kernels.tiles import PANEL, ROWS, round_up
from minisplade.models.bert import BertConfig, positions

BLOCK = np.zeros(layers.ROW_BLOCK * layers.PASSED_STRIDE, dtype=np.float32)


def panels(weight: FloatArray) -> FloatArray:
    """Cut (out, in) into panels, by the definition of the layout."""
    rows, size = weight.shape
    cut = np.zeros((round_up(rows, PANEL) // PANEL, size, PANEL), dtype=np.float32)
    for row in range(rows):
        cut[row // PANEL, :, row % PANEL] = weight[row]
    return cut.ravel()


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 12, 20), (40, 300, 16)])
@pytest.mark.parametrize("add", [False, True])
def test_linear(shape: tuple[int, int, int], add: bool) -> None:
    count, size, width = shape
    rng = np.random.default_rng(count)
    rows, stride, out_stride = round_up(count, ROWS), size + 3, round_up(width, PANEL)
    x = rng.standard_normal((rows, stride), dtype=np.float32)
    weight = rng.standard_normal((width, size), dtype=np.float32)
    bias = np.zeros(out_stride, dtype=np.float32)
    bias[:width] = rng.standard_normal(width)
    out = rng.standard_normal((rows, out_stride), dtype=np.float32)
    before = out.copy()
    flat = out.reshape(-1)
    layers.linear(
        x.reshape(-1), stride, size, panels(weight), bias, rows, flat, out_stride, add, BLOCK
    )
    expected = x[:, :size].astype(np.float64) @ weight.T + bias[:width]
    if add:
        expected += before[:, :width]
    assert np.abs(out[:, :width] - expected).max() < 1e-6 * size + 1e-6


def test_layer_norm() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 32), dtype=np.float32) * 9
    weight, bias = rng.standard_normal((2, 20), dtype=np.float32)
    exact = functional.layer_norm(x[:, :20].astype(np.float64), weight, bias, 1e-12)
    padding = x[:, 20:].copy()
    layers.layer_norm(x.reshape(-1), 32, 20, 5, weight, bias, 1e-12)
    assert np.abs(x[:, :20] - exact).max() < 3e-6
    assert np.array_equal(x[:, 20:], padding)


def test_gelu_over_its_whole_range() -> None:
    x = np.concatenate([np.linspace(-12, 12, 4001), [0, 1e-30, -1e-30, 1e4, -1e4]])
    found = x.astype(np.float32)
    layers.gelu(found, found.size)
    x = x.astype(np.float32).astype(np.float64)
    exact = x * special.ndtr(x)
    assert (np.abs(found - exact) / np.maximum(1, np.abs(x))).max() < 4e-7


@pytest.mark.parametrize("count", [1, 3, 8, 127])
@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0, 3e4])
def test_softmax(count: int, spread: float) -> None:
    rng, start = np.random.default_rng(count), 5
    x = (rng.standard_normal(start + round_up(count, PANEL) + 1) * spread).astype(np.float32)
    before, own, scale = x.copy(), slice(start, start + count), np.float32(0.125)
    exact = special.softmax(x[own].astype(np.float64) * float(scale))
    attention.softmax(x, start, count, scale)
    assert np.abs(x[own] - exact).max() < 3e-7
    assert np.array_equal(x[:start], before[:start])  # what is left behind it is of no use
    assert x[-1] == before[-1]


class Shape(NamedTuple):
    lengths: tuple[int, ...]
    heads: int
    size: int


SHAPES = [Shape((1,), 1, 4), Shape((5, 2, 30), 3, 6), Shape((17,), 2, 20), Shape((150, 9), 2, 8)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [1, 4, 20, attention.EVERYTHING])
def test_attention_sees_its_own_text_only(shape: Shape, window: int) -> None:
    rng = np.random.default_rng(7)
    hidden, count = shape.heads * shape.size, sum(shape.lengths)
    rows, stride = round_up(count, ROWS) + ROWS, round_up(3 * hidden, PANEL)
    wide = rng.standard_normal((rows, stride), dtype=np.float32)
    mixed = np.zeros((rows, hidden), dtype=np.float32)
    offsets = np.cumsum((0, *shape.lengths)).astype(np.int64)
    longest, one_head = round_up(max(shape.lengths), PANEL), round_up(shape.size, PANEL)
    block = attention.QUERY_BLOCK
    sizes = (longest * one_head, longest * one_head, block * longest, block * one_head)
    scratch = attention.AttentionScratch(*(np.full(size, 9, np.float32) for size in sizes))
    flat = wide.reshape(-1), stride, hidden, shape.heads, offsets, mixed.reshape(-1), hidden
    attention.attention(*flat, window, scratch)
    for first, last in zip(offsets, offsets[1:], strict=False):
        parts = np.split(wide[first:last, : 3 * hidden].astype(np.float64), 3, axis=1)
        by_head = [p.reshape(-1, shape.heads, shape.size).swapaxes(0, 1)[None] for p in parts]
        exact = naive.attention(*by_head, np.ones((1, last - first), dtype=bool), window)
        assert np.abs(mixed[first:last] - exact[0].swapaxes(0, 1).reshape(-1, hidden)).max() < 2e-6


def tokens_of(texts: list[list[int]], types: list[int]) -> layers.Tokens:
    """Lay out texts, with an empty one behind them, as there is in a chunk that is not full."""
    lengths = [len(text) for text in texts]
    offsets = np.cumsum((0, *lengths, 0)).astype(np.int64)
    ids = np.array([token for text in texts for token in text], np.int32)
    unknown = np.full((2, ids.size), -1, np.int32)
    return layers.Tokens(ids, np.array(types, np.int32), offsets, *unknown)


def test_embed() -> None:
    rng = np.random.default_rng(3)
    word, position = rng.standard_normal((2, 9, 20), dtype=np.float32)
    token_type, (weight, bias) = rng.standard_normal((2, 2, 20), dtype=np.float32)
    tokens = tokens_of([[4, 0], [8, 8, 1]], [0, 1, 0, 0, 1])
    tables = layers.Embeddings(word, position, token_type, weight, bias)
    states = np.zeros((6, 32), dtype=np.float32)
    nothing = np.zeros(1, dtype=np.float32)
    rest = [nothing] * (len(layers.Scratch._fields) - 1)
    layers.embed(tokens, tables, 0, 0, 1e-12, layers.Scratch(states.reshape(-1), *rest), 32)
    places = np.array([0, 1, 0, 1, 2])
    added = word[tokens.input_ids].astype(np.float64) + position[places] + token_type[tokens.types]
    exact = functional.layer_norm(added, weight, bias, 1e-12)
    assert np.abs(states[:5, :20] - exact).max() < 3e-6
    assert math.isclose(float(np.abs(states[:, 20:]).sum()), 0)


@pytest.mark.parametrize("offset", [0, 2])
def test_place(offset: int) -> None:
    texts = [[7, 1, 5, 1, 1, 6], [1], [5, 5]]
    tokens = tokens_of(texts, [0] * 9)
    layers.place(tokens, offset, 1)
    config = BertConfig(9, 8, 1, 1, 8, 9, 1, 1e-12, pad_token_id=1, position_offset=offset)
    expected = [positions(config, np.array(text, np.int32)) for text in texts]
    assert tokens.places.tolist() == np.concatenate(expected).tolist()
    assert tokens.owners.tolist() == [0] * 6 + [1] + [2] * 2


@pytest.mark.parametrize(("heads", "size"), [(1, 2), (3, 6), (2, 16)])
def test_rotate(heads: int, size: int) -> None:
    rng = np.random.default_rng(size)
    hidden, places = heads * size, np.array([0, 1, 2, 0, 1, 7], np.int32)
    wide = rng.standard_normal((6, 3 * hidden + 5), dtype=np.float32)
    expected = wide.copy()
    cos, sin = rotary.rotation_tables(9, size, 100.0, 2.0)
    rotary.rotate(wide.reshape(-1), wide.shape[1], hidden, heads, places, cos, sin)
    for row, place in enumerate(places):
        for start in range(0, 2 * hidden, size):
            head = expected[row, start : start + size]
            for i in range(size // 2):
                angle = place * (200.0 ** (-2 * i / size)) / 2 ** (2 / size)
                pair = complex(head[i], head[i + size // 2]) * cmath.exp(1j * angle)
                head[i], head[i + size // 2] = pair.real, pair.imag
    assert np.abs(wide - expected).max() < 2e-6


def test_gate() -> None:
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((6, 64), dtype=np.float32)
    gates, values = np.split(wide.astype(np.float64), 2, axis=1)
    rotary.gate(wide.reshape(-1), 6, 32)
    assert np.abs(wide[:, :32] - gates * special.ndtr(gates) * values).max() < 1e-6


def test_normalised_leaves_its_input() -> None:
    rng = np.random.default_rng(1)
    states = rng.standard_normal((6, 16), dtype=np.float32)
    kept, out = states.copy(), np.zeros_like(states)
    weight, bias = rng.standard_normal((2, 12), dtype=np.float32)
    rotary.normalised(states.reshape(-1), 16, 12, 6, weight, bias, 1e-5, out.reshape(-1))
    exact = functional.layer_norm(kept[:, :12].astype(np.float64), weight, bias, 1e-5)
    assert np.abs(out[:, :12] - exact).max() < 3e-6
    assert np.array_equal(states, kept)


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    assert_passes_uncompiled(__file__)
