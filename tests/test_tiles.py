"""Tiles as LLVM compiles them against their definitions in NumPy and against whole numbers."""

# ruff: noqa: ANN001, ANN201

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uncompiled import assert_passes_elsewhere, assert_passes_uncompiled

from minisplade.kernels.compiler import kernel
from minisplade.kernels.tiles import (
    CODE_OFFSET,
    FEW_ROWS,
    LANES,
    PANEL,
    ROWS,
    TALLEST,
    TERMS,
    bound_row,
    bound_tile,
    dot,
    float_from_bits,
    has_vnni,
    largest,
    lowest_bit,
    multiply_tile,
    multiply_two_tiles,
    round_up,
    whole_tiles,
)
from minisplade.runtime import cpu_features

needs_avx2 = pytest.mark.skipif("avx2" not in cpu_features(), reason="this CPU has no AVX2")


@kernel
def run_multiply_tile(x, x_start, x_stride, panel, start, size, out, out_start, out_stride, rows):
    multiply_tile(x, x_start, x_stride, panel, start, size, out, out_start, out_stride, rows)


@kernel
def run_multiply_two_tiles(
    x,
    x_start,
    x_stride,
    panels,
    start,
    step,
    size,
    out,
    out_start,
    out_stride,
    rows,
):
    multiply_two_tiles(
        x, x_start, x_stride, panels, start, step, size, out, out_start, out_stride, rows
    )


@kernel
def run_dot(a, a_start, b, b_start, size):
    return dot(a, a_start, b, b_start, size)


@kernel
def run_largest(x, start, size):
    return largest(x, start, size)


@kernel
def run_bound_tile(
    codes, size, depth, panel, first_sums, block, scales, slacks, floors, waiting, count
):
    return bound_tile(
        codes,
        0,
        size,
        depth,
        panel,
        0,
        first_sums,
        0,
        block,
        scales,
        0,
        slacks,
        ROWS,
        floors,
        ROWS,
        100,
        waiting,
        count,
    )


@kernel
def run_bound_row(codes, start, size, panel, first_sums, block, scales, slacks, token, floors):
    return bound_row(
        codes,
        start,
        size,
        panel,
        0,
        first_sums,
        0,
        block,
        scales[token],
        slacks[ROWS + token],
        floors,
        ROWS,
    )


@kernel
def run_lowest_bit(bits):
    return lowest_bit(bits)


@kernel
def run_float_from_bits(bits):
    return float_from_bits(bits)


@pytest.mark.parametrize("size", [1, 7, 128, 300])
@pytest.mark.parametrize("rows", range(ROWS, TALLEST + 1))
def test_multiply_tile(size: int, rows: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal(3 + rows * (size + 2), dtype=np.float32)
    panel = rng.standard_normal(5 + size * PANEL, dtype=np.float32)
    out = rng.standard_normal(2 + rows * 40, dtype=np.float32)
    before = out.copy()
    run_multiply_tile(x, 3, size + 2, panel, 5, size, out, 2, 40, rows)
    inputs = x[3:].reshape(rows, size + 2)[:, :size].astype(np.float64)
    expected = before.astype(np.float64)
    expected[2:].reshape(rows, 40)[:, :PANEL] += inputs @ panel[5:].reshape(size, PANEL)
    assert np.abs(out - expected).max() < 1e-6 * size + 1e-6
    touched = np.zeros(out.size, dtype=bool)
    touched[2:].reshape(rows, 40)[:, :PANEL] = True
    assert np.array_equal(out[~touched], before[~touched])


@pytest.mark.parametrize("size", [1, 128])
@pytest.mark.parametrize("rows", range(ROWS, TALLEST + 1))
def test_multiply_two_tiles_is_multiply_tile_twice(size: int, rows: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.standard_normal(3 + rows * (size + 2), dtype=np.float32)
    panels = rng.standard_normal(5 + 3 * size * PANEL, dtype=np.float32)
    out = rng.standard_normal(2 + rows * 40, dtype=np.float32)
    expected = out.copy()
    step = 2 * size * PANEL
    run_multiply_two_tiles(x, 3, size + 2, panels, 5, step, size, out, 2, 40, rows)
    for panel in range(2):
        start, to = 5 + panel * step, 2 + panel * PANEL
        run_multiply_tile(x, 3, size + 2, panels, start, size, expected, to, 40, rows)
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("rows", range(ROWS, TALLEST + 1))
def test_a_sum_does_not_depend_on_its_place_or_on_the_height_of_the_tile(rows: int) -> None:
    rng = np.random.default_rng(0)
    row = rng.standard_normal(50, dtype=np.float32)
    panel = np.repeat(rng.standard_normal(50, dtype=np.float32), PANEL)
    out, alone = np.zeros((2, rows * PANEL), dtype=np.float32)
    run_multiply_tile(np.tile(row, rows), 0, 50, panel, 0, 50, out, 0, PANEL, rows)
    run_multiply_tile(np.tile(row, ROWS), 0, 50, panel, 0, 50, alone, 0, PANEL, ROWS)
    assert np.unique(out).tolist() == [alone[0]]


def test_rows_are_whole_tiles() -> None:
    tall = range(ROWS, TALLEST + 1)
    made = {0}
    for count in range(1, FEW_ROWS + 1):
        if any(count - height in made for height in tall):
            made.add(count)
    for count in range(3 * FEW_ROWS):
        rows = whole_tiles(count)
        assert rows == min(made - set(range(count)), default=round_up(count, ROWS))


@pytest.mark.parametrize("size", [LANES, 24, 128])
def test_dot(size: int) -> None:
    rng = np.random.default_rng(size)
    a, b = rng.standard_normal((2, size + 9), dtype=np.float32)
    exact = float(a[9:].astype(np.float64) @ b[1 : size + 1])
    assert run_dot(a, 9, b, 1, size) == pytest.approx(exact, abs=1e-5)
    whole = np.rint(a * 3)  # whole numbers are exact in any order
    assert run_dot(whole, 9, whole, 9, size) == (whole[9:] ** 2).sum()


@pytest.mark.parametrize("size", [PANEL, 5 * PANEL])
def test_largest(size: int) -> None:
    x = np.random.default_rng(size).standard_normal(size + 4, dtype=np.float32) - 5
    for place in range(size):
        x[2 + place] = place
        assert run_largest(x, 2, size) == place
    assert run_largest(np.full(size, -np.inf, dtype=np.float32), 0, size) == -np.inf


@needs_avx2
@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(4, 4, 4), (20, 20, 8), (64, 32, 32), (128, 128, 96), (256, 128, 256)]),
)
def test_bounds_are_whole_number_arithmetic(seed: int, shape: tuple[int, int, int]) -> None:
    size, block, depth = shape
    block = size if has_vnni() else block
    rng = np.random.default_rng(seed)
    states = rng.integers(-127, 128, (ROWS, size))
    terms = rng.integers(-63, 64, (TERMS, size))
    # As long as a piece's true sum fits 16 bits, the wrapped one is right.
    limit = int((2**15 - 1) // block)
    states = states if limit >= 127 * 63 else np.clip(states, -(limit // 16) - 1, limit // 16)
    terms = terms if limit >= 127 * 63 else np.clip(terms, -15, 15)
    codes = (states + CODE_OFFSET).astype(np.uint8).ravel()
    panel = terms.reshape(TERMS, size // 4, 4).swapaxes(0, 1).astype(np.int8).ravel()
    scales = rng.choice([1, 0.5], ROWS).astype(np.float32)
    slacks = rng.choice([0, -5, 7], 2 * ROWS).astype(np.float32)
    for columns in (depth, size):
        products = states[:, :columns] @ terms[:, :columns].T
        floors = rng.choice(products.ravel(), TERMS + ROWS).astype(np.float32)  # often equal
        if rng.random() < 0.5:  # few hits, or none
            floors += np.where(rng.random(floors.size) < 0.05, 0, 2**20).astype(np.float32)
        cuts = [*range(0, columns, block), columns]
        sums = [terms[:, start:end].sum(axis=1) for start, end in zip(cuts, cuts[1:], strict=False)]
        first_sums = (-CODE_OFFSET * np.stack(sums)).astype(np.int32).ravel()
        hits = products > scales[:, None] * floors[ROWS:] + slacks[ROWS:, None]
        some = np.flatnonzero(hits.any(axis=1))
        for run in (run_bound_tile, run_bound_tile.function):
            waiting = np.full(ROWS + 3, -1, np.int64)
            first = codes, size, columns, panel, first_sums, block, scales, slacks, floors
            assert run(*first, waiting, 2) == 2 + some.size
            assert waiting[: 2 + some.size].tolist() == [-1, -1, *(100 + some)]
        if columns < size:
            continue
        for token in range(ROWS):
            rest = panel, first_sums, block, scales, slacks, token, floors
            for row in (run_bound_row, run_bound_row.function):
                bits = row(codes, token * size, size, *rest)
                assert [bits >> i & 1 for i in range(TERMS)] == hits[token].tolist()


@needs_avx2
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_bound_that_is_no_number_is_a_hit(bad: float) -> None:
    codes = np.full(ROWS * 4, CODE_OFFSET, dtype=np.uint8)
    panel, first_sums = np.zeros(4 * TERMS, np.int8), np.zeros(TERMS, np.int32)
    floors = np.full(ROWS + TERMS, bad, dtype=np.float32)
    waiting = np.zeros(ROWS + 1, np.int64)
    scales, slacks = np.ones(ROWS, "f4"), np.zeros(2 * ROWS, "f4")
    first = codes, 4, 4, panel, first_sums, 4, scales, slacks, floors
    assert run_bound_tile(*first, waiting, 0) == ROWS
    rest = panel, first_sums, 4, scales, slacks, 0, floors
    every = 2**TERMS - 1
    assert run_bound_row(codes, 0, 4, *rest) & every == every


@pytest.mark.parametrize("place", [0, 1, 15, 31, 62])
def test_lowest_bit(place: int) -> None:
    assert run_lowest_bit(1 << place) == place
    assert run_lowest_bit((1 << place) | (1 << 62)) == place
    assert run_lowest_bit(0) == 64


def test_float_from_bits() -> None:
    for number in (1.0, 2.0**-126, 2.0**127, 0.0):
        assert run_float_from_bits(int(np.float32(number).view(np.int32))) == number


AVX2 = "avx avx2 fma popcnt bmi bmi2 sse4.1 sse4.2 ssse3 sse3".split()
AVX512 = [*AVX2, *"avx512f avx512bw avx512dq avx512vl".split()]
OTHER_CPUS = {
    "AVX2": AVX2,
    "AVX2 with VNNI": [*AVX2, "avxvnni"],
    "AVX-512": AVX512,
}


@pytest.mark.parametrize("name", OTHER_CPUS)
def test_instructions_of_other_cpus(name: str, tmp_path: Path) -> None:
    """Every set of instructions that this CPU has passes, not only the one it is best at."""
    if not set(OTHER_CPUS[name]) <= cpu_features():
        pytest.skip(f"this CPU has no {name}")
    features = ",".join(f"+{feature}" for feature in OTHER_CPUS[name])
    cpu = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    files = Path(__file__), Path(__file__).with_name("test_head.py")
    cpu["MINISPLADE_CACHE"] = str(tmp_path)
    assert_passes_elsewhere(files, cpu, "test_tiles or random_weights")


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    assert_passes_uncompiled(__file__)
