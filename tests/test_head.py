"""The screened head against every logit computed: on real, random and hostile weights."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uncompiled import assert_passes_uncompiled

from minisplade.arrays import FloatArray, OffsetArray
from minisplade.kernels import head
from minisplade.kernels.compiler import Bundle
from minisplade.kernels.layers import PASSED_STRIDE, ROW_BLOCK
from minisplade.kernels.screen import WAITING, HeadScratch, code_columns, coding_of, quantise
from minisplade.kernels.tiles import CODE_OFFSET, LANES, PANEL, ROWS, TERMS
from minisplade.models.screening import (
    DEPTHS,
    Plan,
    build_screen,
    coding_here,
    depth_choices,
    first_plan,
    learned_plan,
)
from minisplade.runtime import cpu_features

pytestmark = pytest.mark.skipif("avx2" not in cpu_features(), reason="this CPU has no AVX2")


def quiet() -> np.errstate:
    """Hostile weights overflow on purpose, in NumPy too."""
    return np.errstate(all="ignore")


def round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def padded(matrix: FloatArray, rows: int, columns: int) -> FloatArray:
    missing = rows - matrix.shape[0], columns - matrix.shape[1]
    return np.pad(matrix, [(0, missing[0]), (0, missing[1])]).astype(np.float32)


class Case:
    """States and a decoder, laid out as kernels want them."""

    def __init__(self, states: FloatArray, decoder: FloatArray, bias: FloatArray) -> None:
        self.count, self.hidden = states.shape
        self.num_terms = bias.size
        self.columns, self.stride = round_up(self.hidden, LANES), round_up(self.hidden, PANEL)
        self.rows = round_up(self.count, ROWS)
        self.states = padded(states, self.rows, self.stride).reshape(-1)
        self.decoder = padded(decoder, self.num_terms, self.columns).reshape(-1)
        self.bias = bias.astype(np.float32)

    def every_logit(self) -> FloatArray:
        """Compute (tokens, V) in the order of sums that dot has, in plain NumPy."""
        states = self.states.reshape(self.rows, -1)[: self.count, : self.columns]
        rows = self.decoder.reshape(self.num_terms, -1)
        # float64 with one rounding at the end agrees with a chain of fused steps to an ulp or so.
        return states.astype(np.float64) @ rows.T.astype(np.float64) + self.bias

    def arguments(self, offsets: OffsetArray) -> tuple:  # type: ignore[type-arg]
        owners = np.repeat(np.arange(offsets.size - 1, dtype=np.int32), np.diff(offsets))
        first = self.states, self.stride, self.hidden, offsets, owners
        return (*first, self.decoder, self.columns, self.bias)

    def screen(self, plan: Plan) -> Bundle:
        rows = self.decoder.reshape(self.num_terms, -1)[:, : self.hidden]
        return build_screen(plan, rows, self.bias)

    def screened(self, offsets: OffsetArray, plan: Plan) -> tuple[bool, FloatArray]:
        pooled = np.zeros((offsets.size - 1, self.num_terms), dtype=np.float32)
        rest = self.screen(plan), self.scratch(), pooled
        return head.pool_screened(*self.arguments(offsets), *rest), pooled

    def scratch(self) -> HeadScratch:
        columns = self.hidden + 256  # enough for any coding
        return HeadScratch(
            turned=np.zeros(self.rows * self.stride, np.float32),
            block=np.zeros(ROW_BLOCK * PASSED_STRIDE, np.float32),
            codes=np.zeros(self.rows * columns, np.uint8),
            scales=np.zeros(self.rows, np.float32),
            slacks=np.zeros(self.rows * DEPTHS, np.float32),
            waiting=np.zeros(WAITING, np.int64),
            logits=np.zeros(ROWS * PANEL, np.float32),
            margins=np.zeros(self.rows, np.float32),
        )

    def all(self, offsets: OffsetArray, activation: int = 1, add: bool = False) -> FloatArray:
        rows = self.decoder.reshape(self.num_terms, -1)[:, : self.hidden]
        filled = padded(rows, round_up(self.num_terms, PANEL), self.hidden)
        panels = filled.reshape(-1, PANEL, self.hidden).swapaxes(1, 2).reshape(-1)
        longest = float(np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1).max()))
        pooled = np.zeros((offsets.size - 1, self.num_terms), dtype=np.float32)
        bias = np.pad(self.bias, (0, -self.num_terms % PANEL))
        settings = panels, bias, longest, activation, add, self.scratch()
        head.pool_all(*self.arguments(offsets), *settings, pooled)
        return pooled


def plans(case: Case, rng: np.random.Generator, centre: FloatArray) -> Iterator[Plan]:
    """Make up sensible and senseless plans; the first is that of models without experience."""
    states = case.states.reshape(case.rows, -1)[: case.count, : case.hidden]
    rows = case.decoder.reshape(case.num_terms, -1)[:, : case.hidden]
    coding = coding_here(case.hidden)
    yield first_plan(centre[None], case.num_terms, coding)
    learned = learned_plan(states, rows, case.bias, coding)
    if learned is not None:
        yield learned
    panels = round_up(case.num_terms, TERMS) // TERMS
    choices = depth_choices(case.hidden, coding).size
    yield Plan(
        coding=coding,
        axes=np.linalg.qr(rng.standard_normal((case.hidden, case.hidden)))[0]
        * rng.choice([0.3, 1, 8], case.hidden)[:, None],
        shift=rng.standard_normal(case.hidden),
        order=rng.permutation(case.num_terms).astype(np.int32),
        depths=rng.integers(0, choices, panels).astype(np.int32),
        beyond=rng.choice([1.0, 100.0, 1e9], choices),
    )


def check(case: Case, centre: FloatArray | None = None, must_finish: bool = True) -> None:
    """All ways must give the same bits, and the same as brute force within rounding."""
    offsets = np.array(sorted({0, case.count // 3, case.count}), dtype=np.int64)
    with quiet():
        logits = case.every_logit()
        exact = np.stack(
            [
                np.maximum(logits[a:b].max(axis=0), 0)
                for a, b in zip(offsets, offsets[1:], strict=False)
            ]
        )
        everything = case.all(offsets)
        centre = np.zeros(case.hidden, np.float32) if centre is None else centre
        for i, plan in enumerate(plans(case, np.random.default_rng(case.hidden), centre)):
            finished, screened = case.screened(offsets, plan)
            assert finished or i or not must_finish
            if finished:
                assert np.array_equal(screened, everything)
    states = case.states.reshape(case.rows, -1)[: case.count].astype(np.float64)
    length = np.sqrt((states**2).sum(axis=1)).max()
    longest = np.sqrt((case.decoder.reshape(case.num_terms, -1).astype(np.float64) ** 2).sum(1))
    with quiet():
        tolerance = 1e-6 * (length * longest + np.abs(case.bias)) + 1e-37
        assert np.all(np.abs(everything - exact) <= tolerance)


def normal(rng: np.random.Generator, *shape: int) -> FloatArray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("hidden", [1, 4, 12, 18, 128, 130, 300])
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_random_weights(hidden: int, mean: float) -> None:
    rng = np.random.default_rng(hidden)
    states = normal(rng, 13, hidden) + mean
    decoder = normal(rng, 53, hidden)
    bias = -mean * decoder.sum(axis=1) - 2.5 * np.sqrt(hidden)  # few logits are positive
    case = Case(states, decoder, bias)
    check(case, states.mean(axis=0))
    check(case)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_hostile_weights(seed: int) -> None:
    """Norms from subnormal to huge, rows of zeros, single spikes, logits around 0, far biases."""
    rng = np.random.default_rng(seed)
    hidden, terms, count = int(rng.integers(1, 40)), int(rng.integers(1, 40)), 11
    states, decoder = normal(rng, count, hidden), normal(rng, terms, hidden)
    decoder *= 10.0 ** rng.choice([-42, -38, -20, -3, 0, 0, 3, 15], (terms, 1))
    decoder[rng.random(terms) < 0.2] = 0
    spiked = rng.random(terms) < 0.2
    decoder[spiked] = 0
    decoder[spiked, rng.integers(0, hidden, spiked.sum())] = rng.choice([-1e4, 1e-4, 1e4])
    states *= 10.0 ** rng.choice([-40, -10, 0, 0, 4, 15], (count, 1))
    states[rng.random(count) < 0.2] = 0
    # Each logit of one token is 0 but for rounding, or the bias is what decides, or nothing does.
    with quiet():
        bias = -(decoder.astype(np.float64) @ states[rng.integers(count)]).astype(np.float32)
    other = rng.choice([0, 1e-45, -1e-45, 1e-20, -1e-6, -3, 5, -1e30, 1e30], terms)
    bias = np.where(rng.random(terms) < 0.5, bias, other.astype(np.float32))
    case = Case(states.astype(np.float32), decoder.astype(np.float32), bias)
    check(case, rng.choice([0.0, 1.0, 1e3]) * normal(rng, hidden), must_finish=False)


@pytest.mark.parametrize("tip", [-1e-6, 0.0, 1e-6])
def test_logits_that_are_nothing_but_rounding(tip: float) -> None:
    rng = np.random.default_rng(5)
    states, decoder = normal(rng, 6, 128), normal(rng, 160, 128)
    bias = -(decoder.astype(np.float64) @ states[2].astype(np.float64)) + tip
    check(Case(states, decoder, bias), must_finish=False)


def test_the_bound_leaves_little() -> None:
    """A sound bound could still be useless: most pairs below -1.5 deviations must be ruled out."""
    rng = np.random.default_rng(9)
    case = Case(normal(rng, 60, 128), normal(rng, 640, 128), np.full(640, -4 * np.sqrt(128)))
    plan = first_plan(np.zeros((1, 128), np.float32), 640, coding_here(128))
    finished, _ = case.screened(np.array([0, 60], dtype=np.int64), plan)
    assert finished


def test_screening_stops_where_much_is_active() -> None:
    rng = np.random.default_rng(2)
    case = Case(normal(rng, 60, 32), normal(rng, 640, 32), np.zeros(640))
    plan = first_plan(np.zeros((1, 32), np.float32), 640, coding_here(32))
    finished, _ = case.screened(np.array([0, 60], dtype=np.int64), plan)
    assert not finished


@pytest.mark.parametrize("activation", [head.LOG, head.LOG_LOG])
def test_sums(activation: int) -> None:
    rng = np.random.default_rng(4)
    case = Case(normal(rng, 17, 20), normal(rng, 37, 20), normal(rng, 37))
    offsets = np.array([0, 5, 17], dtype=np.int64)
    weights = np.log1p(np.maximum(case.every_logit(), 0))
    if activation == head.LOG_LOG:
        weights = np.log1p(weights)
    exact = np.stack([weights[:5].sum(axis=0), weights[5:].sum(axis=0)])
    assert np.abs(case.all(offsets, activation, add=True) - exact).max() < 1e-5


def test_take_active_empties_what_it_reads() -> None:
    pooled = np.array([0, 2, 0, 1e-9, 7], dtype=np.float32)
    for activated, function in ((True, lambda x: x), (False, np.log1p)):
        again = pooled.copy()
        term_ids, weights = np.zeros(5, np.int32), np.zeros(5, np.float32)
        count = head.take_active(again, head.LOG, activated, term_ids, weights)
        assert term_ids[:count].tolist() == [1, 3, 4]
        assert weights[:count] == pytest.approx(function(pooled[[1, 3, 4]]), rel=1e-6)
        assert not again.any()


@pytest.mark.parametrize("size", [5, 64, 1000])
def test_take_active_finds_all_wherever_they_are(size: int) -> None:
    rng = np.random.default_rng(size)
    for share in (0.0, 0.004, 0.5):
        pooled = np.where(rng.random(size) < share, rng.random(size) + 0.1, 0).astype(np.float32)
        pooled[[0, -1]] = 1
        term_ids, weights = np.zeros(size, np.int32), np.zeros(size, np.float32)
        expected = np.flatnonzero(pooled)
        count = head.take_active(pooled, head.LOG, True, term_ids, weights)
        assert term_ids[:count].tolist() == expected.tolist()
        assert not pooled.any()


@pytest.mark.parametrize("hidden", [4, 100, 128, 300])
@pytest.mark.parametrize("wide", [False, True])
def test_codes_stay_within_what_sums_hold(hidden: int, wide: bool) -> None:
    """Whatever the direction, a block of codes is shorter than the root of 2 ** 15 or 2 ** 31."""
    rng = np.random.default_rng(8)
    rows = [np.ones(hidden), normal(rng, hidden), np.eye(hidden)[0], np.zeros(hidden)]
    vectors = np.stack([*rows, -rows[0], 1e4 * rows[1]]).astype(np.float32)
    case = Case(vectors, vectors, np.zeros(len(vectors), np.float32))
    count, coding = len(vectors), coding_of(hidden, wide)
    screen, scratch = case.screen(first_plan(0 * vectors, count, coding)), case.scratch()
    quantise(case.states, case.stride, hidden, count, case.rows, screen, scratch)
    columns, block = code_columns(hidden, coding), coding.block
    codes = scratch.codes[: case.rows * columns].reshape(case.rows, -1, block)[:count]
    codes = codes.astype(np.int64) - CODE_OFFSET
    terms = screen.value.panels.reshape(-1, TERMS, 4).swapaxes(0, 1).reshape(TERMS, -1, block)
    for some, largest_code in ((codes, 127), (terms.astype(np.int64), 127 if wide else 63)):
        assert (some**2).sum(axis=2).max() < 2 ** (31 if wide else 15)
        assert np.abs(some).max() <= largest_code
        assert np.abs(some[2]).max() == largest_code  # and a spike uses all there is


def test_learned_axes_rule_out_more() -> None:
    """Where hidden states keep to a few directions, the first columns rule most terms out."""
    rng = np.random.default_rng(3)
    spread = 0.8 ** np.arange(64)
    turn = np.linalg.qr(normal(rng, 64, 64))[0]
    states = (normal(rng, 600, 64) * spread) @ turn
    decoder = normal(rng, 960, 64)
    bias = np.full(960, -4 * np.sqrt(np.square(spread).sum()), np.float32)
    coding = coding_here(64)
    plan = learned_plan(states.astype(np.float32), decoder, bias, coding)
    assert plan is not None
    columns = depth_choices(64, coding)[plan.depths]
    assert columns.mean() < 40
    u = (states @ plan.axes.T + plan.shift)[:, : columns.max()]
    correlation = np.cov(u.T) - np.diag(np.var(u, axis=0, ddof=1))
    assert np.abs(correlation).max() < 1e-3 * np.var(u)


def test_what_is_learned_needs_no_other_machine_code() -> None:
    rng = np.random.default_rng(6)
    states, decoder = normal(rng, 600, 32), normal(rng, 320, 32)
    bias = np.full(320, -30, np.float32)
    coding = coding_here(32)
    learned = learned_plan(states, decoder, bias, coding)
    assert learned is not None
    plans = first_plan(states, 320, coding), learned
    before, after = (build_screen(plan, decoder, bias) for plan in plans)
    assert before.kind == after.kind


def test_nothing_is_learned_from_nothing() -> None:
    states, decoder = np.zeros((600, 8), np.float32), np.ones((64, 8), np.float32)
    bias = np.ones(64, np.float32)
    coding = coding_here(8)
    assert learned_plan(states * np.nan, decoder, bias, coding) is None
    assert learned_plan(states, decoder, bias, coding) is None  # every term stays open


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    assert_passes_uncompiled(__file__)
