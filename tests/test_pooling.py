"""SPLADE pooling against its definition."""

import naive
import numpy as np
import pytest

from minisplade import pooling
from minisplade.pooling import Activation, Strategy

RNG = np.random.default_rng(3)
CHOICES: list[tuple[Strategy, Activation]] = [
    ("max", "relu"),
    ("max", "log1p_relu"),
    ("sum", "relu"),
    ("sum", "log1p_relu"),
]


@pytest.mark.parametrize(("strategy", "activation"), CHOICES)
def test_pooling_is_what_the_papers_say(strategy: Strategy, activation: Activation) -> None:
    logits = RNG.normal(0, 3, size=(3, 6, 40)).astype("f4")
    mask = np.arange(6) < np.array([[6], [1], [4]])
    pooled = pooling.splade_pool(logits, mask, strategy, activation)
    expected = naive.splade_pool(logits, mask, strategy, activation)
    assert pooled == pytest.approx(expected, abs=2e-6)
    assert pooled.dtype == np.float32


@pytest.mark.parametrize(("strategy", "activation"), CHOICES)
@pytest.mark.parametrize("tile_logits", [1, 1000, 10**6])
def test_tiles_give_what_whole_logits_give(
    monkeypatch: pytest.MonkeyPatch,
    tile_logits: int,
    strategy: Strategy,
    activation: Activation,
) -> None:
    monkeypatch.setattr(pooling, "TILE_LOGITS", tile_logits)
    states = RNG.normal(size=(2, 5, 8)).astype("f4")
    weight, bias = RNG.normal(size=(150, 8)).astype("f4"), RNG.normal(size=150).astype("f4")
    mask = np.arange(5) < np.array([[5], [3]])
    tiled = pooling.pool_tiles(states, weight, bias, mask, strategy, activation)
    whole = pooling.splade_pool(states @ weight.T + bias, mask, strategy, activation)
    assert tiled == pytest.approx(whole, abs=1e-5)


def test_a_logit_of_exactly_zero_is_absent() -> None:
    logits = np.array([[[0.0, -1.0, 1e-30]]], dtype=np.float32)
    assert (pooling.splade_pool(logits, np.ones((1, 1), bool)) > 0).tolist() == [
        [False, False, True]
    ]
