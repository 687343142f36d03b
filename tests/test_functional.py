"""The layers against float64 and the definitions."""

import math

import naive
import numpy as np
import pytest
from scipy import special

from minisplade import functional

RNG = np.random.default_rng(7)


def test_linear_multiplies_by_the_transposed_weight() -> None:
    x, weight = RNG.normal(size=(2, 3, 5)).astype("f4"), RNG.normal(size=(4, 5)).astype("f4")
    bias = RNG.normal(size=4).astype("f4")
    expected = np.einsum("bti,oi->bto", x.astype(float), weight.astype(float)) + bias
    assert functional.linear(x, weight, bias) == pytest.approx(expected, abs=1e-6)


def test_layer_norm_gives_mean_0_and_variance_1_before_scaling() -> None:
    x = RNG.normal(3, 2, size=(2, 3, 64)).astype("f4")
    y = functional.layer_norm(x, np.ones(64, "f4"), np.zeros(64, "f4"), 1e-12)
    assert y.mean(-1) == pytest.approx(np.zeros((2, 3)), abs=1e-6)
    assert y.var(-1) == pytest.approx(np.ones((2, 3)), abs=1e-5)
    weight, bias = RNG.normal(size=(2, 64)).astype("f4")
    scaled = functional.layer_norm(x, weight, bias, 1e-12)
    assert scaled == pytest.approx(y * weight + bias, abs=1e-6)


def test_layer_norm_of_a_constant_row_is_the_bias() -> None:
    ones = np.ones((1, 8), "f4")
    assert np.array_equal(functional.layer_norm(ones, ones[0], ones[0], 1e-12), ones)


def test_erf_is_good_to_six_steps_of_float32() -> None:
    x = np.linspace(-6, 6, 200_001, dtype=np.float32)
    assert np.abs(functional.erf(x) - special.erf(x.astype(float))).max() < 4e-7
    assert functional.erf(np.array([np.inf, -np.inf, 0], "f4")).tolist() == [1, -1, 0]


def test_gelu_is_x_times_the_normal_distribution() -> None:
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    expected = [v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    assert np.abs(functional.gelu(x) - expected).max() < 1.2e-6


def test_softmax_sums_to_1_and_bears_large_numbers() -> None:
    x = np.array([[1000, 1000, -1000], [0, math.log(3), -np.inf]], dtype=np.float32)
    expected = np.array([[0.5, 0.5, 0], [0.25, 0.75, 0]])
    assert functional.softmax(x) == pytest.approx(expected, abs=1e-6)


def test_attention_matches_loops_and_ignores_padding() -> None:
    query, key, value = RNG.normal(size=(3, 2, 3, 5, 4)).astype("f4")
    mask = np.arange(5) < np.array([[5], [2]])
    mixed, shares = functional.attention(query, key, value, mask)
    assert mixed == pytest.approx(naive.attention(query, key, value, mask), abs=1e-6)
    value[1, :, 2:] = 1e6  # what padding holds must not matter
    assert np.array_equal(functional.attention(query, key, value, mask)[0][1], mixed[1])
    assert shares.sum(axis=-1) == pytest.approx(1, abs=1e-6)
    assert not shares[1, :, :, 2:].any()


def test_attention_without_any_token_is_finite() -> None:
    x = np.ones((1, 1, 2, 3), "f4")
    assert np.isfinite(functional.attention(x, x, x, np.zeros((1, 2), bool))[0]).all()


def test_everything_stays_float32() -> None:
    x = np.ones((1, 2, 2, 4), "f4")
    mask = np.ones((1, 2), bool)
    row = np.ones(4, "f4")
    for y in (
        functional.gelu(x),
        functional.softmax(x),
        functional.layer_norm(x, row, row, 1e-12),
        functional.linear(x, np.ones((3, 4), "f4"), np.ones(3, "f4")),
        *functional.attention(x, x, x, mask),
    ):
        assert y.dtype == np.float32
