"""How the decoder is laid out so that a bound rules out most logits after a few columns.

kernels/screen.py has the bound, which holds along any axes and in any order of terms; here those
are chosen, from hidden states that the model has made of real text, so that the bound is quick.

Axes. Hidden states u = A (h - mean) and weights v, with v·u = w·(h - mean), shall both have
uncorrelated columns, and the same variances, falling from column to column: then the first columns
hold as much of every product as a linear map can move there. This is the balancing of linear
systems (Moore 1981, Principal component analysis in linear systems, section IV), with the
covariance of hidden states and that of the decoder's rows as its two Gramians.

Order and depth. A term that the first columns often fail to rule out shares its panel with others
of that kind, and each panel is looked at as deep as cost least for a sample of tokens.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import CodeArray, DoubleArray, FloatArray, IdArray, OffsetArray
from minisplade.kernels.compiler import Bundle
from minisplade.kernels.screen import (
    NEVER,
    Coding,
    Screen,
    code_columns,
    coding_of,
    pack_terms,
)
from minisplade.kernels.tiles import PANEL, ROWS, TERMS, has_vnni, panels_of, round_up

SAMPLE_TILES = 80
"""Tiles of tokens that order and depths are chosen by."""
COMPARING = 16
"""What comparing a tile with its bound costs, in columns."""
SURPRISE = 60
"""What it costs, in columns, that the processor expected to stop and goes on, or the reverse."""
TERMS_AT_ONCE = 4096
TINY = np.float32(1e-30)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the bound looks first."""

    coding: Coding
    axes: DoubleArray  # float64 (D, D), A
    shift: DoubleArray  # float64 (D,), a: u = A h + a
    order: IdArray  # int32 (V,), the term in each place
    depths: IdArray  # int32 (panels,), places in depth_choices


@functools.cache
def depth_choices(hidden: int, coding: Coding) -> OffsetArray:
    """Return after how many columns the bound may stop, int64; the last is all of them.

    A depth within a block of columns is possible only where there is no other block.
    """
    blocks = code_columns(hidden, coding) // coding.block
    if blocks == 1:
        depths = [round_up(coding.block * quarter // 4, 4) for quarter in (1, 2, 3, 4)]
    else:
        depths = [max(1, blocks * quarter // 4) * coding.block for quarter in (1, 2, 3, 4)]
    return np.unique(np.array(depths, dtype=np.int64))


@functools.cache
def coding_here(hidden: int) -> Coding:
    """Return the coding that suits this CPU."""
    return coding_of(hidden, wide=has_vnni())


def first_plan(states: FloatArray, num_terms: int, coding: Coding) -> Plan:
    """Plan with the axes and the order that there are, around the mean of some hidden states.

    states: float32 (N, D), of which none, one or many are enough.
    """
    hidden = states.shape[1]
    panels = round_up(num_terms, TERMS) // TERMS
    whole = depth_choices(hidden, coding).size - 1
    return Plan(
        coding=coding,
        axes=np.eye(hidden),
        shift=-states.mean(axis=0, dtype=np.float64),
        order=np.arange(num_terms, dtype=np.int32),
        depths=np.full(panels, whole, dtype=np.int32),
    )


def learned_plan(
    states: FloatArray, decoder: FloatArray, bias: FloatArray, coding: Coding
) -> Plan | None:
    """Plan for the hidden states of real text; None where no axes are better than the first.

    states: float32 (N, D), several thousand, in the order of the text; decoder: float32 (V, D);
    bias: float32 (V,).
    """
    choices = depth_choices(states.shape[1], coding)
    if choices.size == 1:
        return None
    try:
        axes, shift = balanced_axes(states, decoder)
    except np.linalg.LinAlgError:  # numbers too large or too small, or none
        return None
    starts = np.linspace(0, states.shape[0] - ROWS, SAMPLE_TILES).astype(np.int64)
    sample = states[(starts[:, None] + np.arange(ROWS)).ravel()]
    turned = sample @ axes.T + shift
    open_after = _open_terms(turned, axes, shift, decoder, bias, coding)
    order = np.argsort(-open_after.sum(axis=(0, 1)), kind="stable").astype(np.int32)
    panels = np.pad(open_after[..., order], [(0, 0), (0, 0), (0, -bias.size % TERMS)])
    goes_on = panels.reshape(choices.size - 1, SAMPLE_TILES, -1, TERMS).any(axis=3).mean(axis=1)
    first, rest = choices[:-1, None] + COMPARING, choices[-1] - choices[:-1, None] + COMPARING
    costs = np.full((choices.size, goes_on.shape[1]), float(choices[-1] + COMPARING))
    costs[:-1] = first + goes_on * rest + SURPRISE * np.minimum(goes_on, 1 - goes_on)
    depths = costs.argmin(axis=0).astype(np.int32)
    return Plan(coding, axes, shift, order, depths) if depths.min() < choices.size - 1 else None


def balanced_axes(states: FloatArray, decoder: FloatArray) -> tuple[DoubleArray, DoubleArray]:
    """Return A and a, float64 (D, D) and (D,), that balance hidden states with the decoder.

    states: float32 (N, D); decoder: float32 (V, D). With L Lᵀ the covariance of hidden states, C
    that of the decoder's rows, and Lᵀ C L = U S Uᵀ, A is S¹ᐟ⁴ Uᵀ L⁻¹: then both u and v have the
    covariance S¹ᐟ².
    """
    hidden = states.shape[1]
    mean = states.mean(axis=0, dtype=np.float64)
    centred = states - mean
    covariance = centred.T @ centred / states.shape[0]
    rows = (decoder.T @ decoder).astype(np.float64) / decoder.shape[0]
    # A little of every axis, so that none is lost where hidden states happen not to go.
    for matrix in (covariance, rows):
        matrix += (1e-5 * np.trace(matrix) / hidden + 1e-30) * np.eye(hidden)
    lower = np.linalg.cholesky(covariance)
    values, vectors = np.linalg.eigh(lower.T @ rows @ lower)
    falling = np.maximum(values[::-1], values[-1] * 1e-9 + 1e-60)
    axes = falling[:, None] ** 0.25 * np.linalg.solve(lower.T, vectors[:, ::-1]).T
    return axes, -axes @ mean


def build_screen(plan: Plan, decoder: FloatArray, bias: FloatArray) -> Bundle:
    """Lay out a decoder as planned; returns a Screen.

    decoder: float32 (V, D); bias: float32 (V,).
    """
    num_terms, hidden = decoder.shape
    columns = code_columns(hidden, plan.coding)
    blocks, choices = columns // plan.coding.block, depth_choices(hidden, plan.coding)
    places = round_up(num_terms, TERMS)
    # The kernel turns hidden states by these very numbers, so bounds are exact about them.
    axes, shift = plan.axes.astype(np.float32), plan.shift.astype(np.float32)
    exact = axes.astype(np.float64)
    turning_back = np.linalg.inv(exact)
    residue = np.linalg.norm(np.eye(hidden) - turning_back @ exact) + 1e-10
    screen = Screen(
        coding=plan.coding,
        panels=_aligned_zeros(places * columns),
        first_sums=np.zeros(places * (blocks + 1), dtype=np.int32),
        floors=np.full(places, NEVER, dtype=np.float32),
        rests=np.zeros(places, dtype=np.float32),
        order=np.pad(plan.order, (0, places - num_terms)),
        depths=plan.depths,
        depth_choices=choices,
        axes=panels_of(axes, hidden),
        shift=np.pad(shift, (0, -hidden % PANEL)),
        turning=np.array([np.linalg.norm(exact), np.linalg.norm(shift), residue]),
        limits=np.zeros(3),
        lost=np.zeros(choices.size),
        kept=np.zeros(choices.size),
    )
    for first in range(0, num_terms, TERMS_AT_ONCE):
        terms = plan.order[first : first + TERMS_AT_ONCE]
        rows = decoder[terms].astype(np.float64)
        turned = rows @ turning_back
        biases = bias[terms] - turned @ shift
        lengths = np.linalg.norm(rows, axis=1)
        pack_terms(turned, lengths, biases, first, np.zeros(blocks), screen)
    return Bundle(screen)


def _open_terms(
    turned: DoubleArray,
    axes: DoubleArray,
    shift: DoubleArray,
    decoder: FloatArray,
    bias: FloatArray,
    coding: Coding,
) -> NDArray[np.bool_]:
    """Find which terms are about to be open after each depth but the last, for tiles of tokens.

    turned: float64 (SAMPLE_TILES * ROWS, D), hidden states along the axes; returns bool
    (choices - 1, SAMPLE_TILES, V). All that a bound adds up is one product of matrices here.
    """
    hidden = decoder.shape[1]
    depths = depth_choices(hidden, coding)[:-1]
    found = np.empty((depths.size, SAMPLE_TILES, bias.size), dtype=np.bool_)
    states, back = turned.astype(np.float32), np.linalg.inv(axes).astype(np.float32)
    for first in range(0, bias.size, TERMS_AT_ONCE):
        here = slice(first, first + TERMS_AT_ONCE)
        terms = decoder[here] @ back
        constant = bias[here] - terms @ shift.astype(np.float32)
        step = _steps(terms, coding.largest, coding.longest)
        state_step = _steps(states, 127, coding.longest)
        for i, depth in enumerate(depths):
            # What rounding to codes may add, with errors as long as even ones are, and what lies
            # beyond depth: the product of the lengths.
            longest_code = (_lengths(terms[:, :depth]) / step).max()
            unsure = np.sqrt(depth / 12) * (_lengths(states[:, :depth]) + state_step * longest_code)
            of_states = _with(states[:, :depth], 1, unsure, _lengths(states[:, depth:]))
            of_terms = _with(terms[:, :depth], constant, step, _lengths(terms[:, depth:]))
            bound = of_states @ of_terms.T
            found[i, :, here] = bound.reshape(SAMPLE_TILES, ROWS, -1).max(axis=1) > 0
    return found


def _steps(rows: FloatArray, largest: int, longest: float) -> FloatArray:
    """Return about how much of each row one step of its codes is."""
    return np.maximum(np.abs(rows).max(axis=1) / largest, _lengths(rows) / longest) + TINY


def _lengths(rows: FloatArray) -> FloatArray:
    """Return the length of each row."""
    return np.sqrt(np.square(rows).sum(axis=1))


def _with(rows: FloatArray, *columns: FloatArray | float) -> FloatArray:
    """Set columns, or one number each, beside a matrix."""
    whole = np.empty((len(rows), rows.shape[1] + len(columns)), dtype=np.float32)
    whole[:, : rows.shape[1]] = rows
    for i, column in enumerate(columns, start=rows.shape[1]):
        whole[:, i] = column
    return whole


def _aligned_zeros(size: int) -> CodeArray:
    """Return int8 zeros that start at a cache line, which vector loads are faster from."""
    room = np.zeros(size + 64, dtype=np.int8)
    start = -room.ctypes.data % 64
    return room[start : start + size]
