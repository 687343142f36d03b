"""Tiles as LLVM compiles them against their definitions in NumPy and against whole numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uncompiled import assert_passes_uncompiled

from minisplade.kernels.compiler import kernel
from minisplade.kernels.tiles import (
    CODE_OFFSET,
    LANES,
    PANEL,
    ROWS,
    TERMS,
    bound_tile,
    dot,
    float_from_bits,
    multiply_tile,
    multiply_two_tiles,
)
from minisplade.runtime import cpu_features

needs_avx2 = pytest.mark.skipif("avx2" not in cpu_features(), reason="this CPU has no AVX2")


@kernel
def run_multiply_tile(x, x_start, x_stride, panel, panel_start, size, out, out_start, out_stride):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    multiply_tile(x, x_start, x_stride, panel, panel_start, size, out, out_start, out_stride)


@kernel
def run_multiply_two_tiles(  # type: ignore[no-untyped-def]  # noqa: ANN201
    x,  # noqa: ANN001
    x_start,  # noqa: ANN001
    x_stride,  # noqa: ANN001
    panels,  # noqa: ANN001
    start,  # noqa: ANN001
    step,  # noqa: ANN001
    size,  # noqa: ANN001
    out,  # noqa: ANN001
    out_start,  # noqa: ANN001
    out_stride,  # noqa: ANN001
):
    multiply_two_tiles(x, x_start, x_stride, panels, start, step, size, out, out_start, out_stride)


@kernel
def run_dot(a, a_start, b, b_start, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return dot(a, a_start, b, b_start, size)


@kernel
def run_bound_tile(codes, panel, first_sums, size, block, scales, slacks, floors, hits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return bound_tile(
        codes, 0, size, panel, 0, first_sums, 0, block, scales, slacks, 0, floors, 0, hits
    )


@kernel
def run_float_from_bits(bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return float_from_bits(bits)


@pytest.mark.parametrize("size", [1, 7, 128, 300])
def test_multiply_tile(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal(3 + ROWS * (size + 2), dtype=np.float32)
    panel = rng.standard_normal(5 + size * PANEL, dtype=np.float32)
    out = rng.standard_normal(2 + ROWS * 40, dtype=np.float32)
    before = out.copy()
    run_multiply_tile(x, 3, size + 2, panel, 5, size, out, 2, 40)
    rows = x[3:].reshape(ROWS, size + 2)[:, :size].astype(np.float64)
    expected = before.astype(np.float64)
    expected[2:].reshape(ROWS, 40)[:, :PANEL] += rows @ panel[5:].reshape(size, PANEL)
    assert np.abs(out - expected).max() < 1e-6 * size + 1e-6
    touched = np.zeros(out.size, dtype=bool)
    touched[2:].reshape(ROWS, 40)[:, :PANEL] = True
    assert np.array_equal(out[~touched], before[~touched])


@pytest.mark.parametrize("size", [1, 128])
def test_multiply_two_tiles_is_multiply_tile_twice(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal(3 + ROWS * (size + 2), dtype=np.float32)
    panels = rng.standard_normal(5 + 3 * size * PANEL, dtype=np.float32)
    out = rng.standard_normal(2 + ROWS * 40, dtype=np.float32)
    expected = out.copy()
    step = 2 * size * PANEL
    run_multiply_two_tiles(x, 3, size + 2, panels, 5, step, size, out, 2, 40)
    for panel in range(2):
        start, to = 5 + panel * step, 2 + panel * PANEL
        run_multiply_tile(x, 3, size + 2, panels, start, size, expected, to, 40)
    assert np.array_equal(out, expected)


def test_a_sum_does_not_depend_on_its_place_in_the_tile() -> None:
    rng = np.random.default_rng(0)
    row = rng.standard_normal(50, dtype=np.float32)
    panel = np.repeat(rng.standard_normal(50, dtype=np.float32), PANEL)
    out = np.zeros(ROWS * PANEL, dtype=np.float32)
    run_multiply_tile(np.tile(row, ROWS), 0, 50, panel, 0, 50, out, 0, PANEL)
    assert np.unique(out).size == 1


@pytest.mark.parametrize("size", [LANES, 24, 128])
def test_dot(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b = rng.standard_normal((2, size + 9), dtype=np.float32)
    exact = float(a[9:].astype(np.float64) @ b[1 : size + 1])
    assert run_dot(a, 9, b, 1, size) == pytest.approx(exact, abs=1e-5)
    whole = np.rint(a * 3)  # whole numbers are exact in any order
    assert run_dot(whole, 9, whole, 9, size) == (whole[9:] ** 2).sum()


@needs_avx2
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 4), (20, 20), (64, 32), (256, 128)]))
def test_bound_tile_is_whole_number_arithmetic(seed: int, shape: tuple[int, int]) -> None:
    size, block = shape
    rng = np.random.default_rng(seed)
    states = rng.integers(-127, 128, (ROWS, size))
    terms = rng.integers(-63, 64, (TERMS, size))
    # As long as a block's true sum fits 16 bits, the wrapped one is right.
    limit = int((2**15 - 1) // block)
    states = states if limit >= 127 * 63 else np.clip(states, -(limit // 16) - 1, limit // 16)
    terms = terms if limit >= 127 * 63 else np.clip(terms, -15, 15)
    products = states @ terms.T
    floors = rng.choice(products.ravel(), TERMS).astype(np.float32)  # equality is frequent
    if rng.random() < 0.5:  # few hits, or none
        floors += np.where(rng.random(TERMS) < 0.05, 0, 2**24)
    scales = np.ones(ROWS, dtype=np.float32)
    slacks = rng.choice([0, -5, 7], ROWS).astype(np.float32)
    codes = (states + CODE_OFFSET).astype(np.uint8).ravel()
    panel = terms.reshape(TERMS, size // 4, 4).swapaxes(0, 1).astype(np.int8).ravel()
    sums = terms.reshape(TERMS, size // block, block).sum(axis=2)
    first_sums = (-CODE_OFFSET * sums).T.astype(np.int32).ravel()
    expected = products > floors + slacks[:, None]
    for run in (run_bound_tile, bound_tile.definition):
        hits = rng.integers(0, 256, ROWS * TERMS // 8).astype(np.uint8)  # whatever was there
        if run is run_bound_tile:
            args = codes, panel, first_sums, size, block, scales, slacks, floors, hits
        else:
            args = (codes, 0, size, panel, 0, first_sums, 0, block)
            args += (scales, slacks, 0, floors, 0, hits)
        some = run(*args)
        found = np.unpackbits(hits, bitorder="little").reshape(ROWS, TERMS).astype(bool)
        assert (some != 0) == expected.any()
        assert np.array_equal(found, expected) or not expected.any()


@needs_avx2
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_bound_that_is_no_number_is_a_hit(bad: float) -> None:
    codes = np.full(ROWS * 4, CODE_OFFSET, dtype=np.uint8)
    panel, first_sums = np.zeros(4 * TERMS, np.int8), np.zeros(TERMS, np.int32)
    floors = np.full(TERMS, bad, dtype=np.float32)
    hits = np.zeros(ROWS * TERMS // 8, dtype=np.uint8)
    ones = np.ones(ROWS, dtype=np.float32)
    assert run_bound_tile(codes, panel, first_sums, 4, 4, ones, 0 * ones, floors, hits)
    assert np.all(hits == 255)


def test_float_from_bits() -> None:
    for number in (1.0, 2.0**-126, 2.0**127, 0.0):
        assert run_float_from_bits(int(np.float32(number).view(np.int32))) == number


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    assert_passes_uncompiled(__file__)
