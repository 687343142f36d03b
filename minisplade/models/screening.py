"""How the decoder is laid out so that a bound rules out most logits after a few columns.

kernels/screen.py has the bound, which holds along any axes and in any order of terms; here those
are chosen, from hidden states that the model has made of real text, so that the bound is quick.

Axes. Hidden states u = A (h - mean) and weights v, with v·u = w·(h - mean), shall both have
uncorrelated columns, and the same variances, falling from column to column: then the first columns
hold as much of every product as a linear map can move there. This is the balancing of linear
systems (Moore 1981, Principal component analysis in linear systems, section IV), with the
covariance of hidden states and that of the decoder's rows as its two Gramians.

Order and depth. A term that the first columns often fail to rule out shares its panel with others
of that kind, and each panel is first looked at as deep as costs least for a sample of tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import DoubleArray, FloatArray, IdArray, OffsetArray, aligned_zeros
from minisplade.kernels.compiler import Bundle
from minisplade.kernels.screen import (
    NEVER,
    Coding,
    Screen,
    code_columns,
    coding_of,
    pack_terms,
)
from minisplade.kernels.tiles import PANEL, TERMS, has_vnni, panels_of, round_up

SAMPLE = 256
"""Tokens that the order is chosen by, and as many others for depths: any order looks better than it
is for those that it was chosen by."""
DEPTHS = 8
"""After how many columns the bound may stop: so many choices, evenly spread."""
ORDERING_DEPTH = 1
"""The depth that terms are ordered by, as a place among the choices."""
COMPARING, ALONE = 14, 2
"""What comparing with the bound costs in columns of a tile, and how many of those one column costs
where a token is looked at alone: both measured."""
SHARED = 0.2
"""The part of all terms that are as short beyond a depth as all have to be made."""
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
    beyond: DoubleArray  # float64 (choices,), of a Screen


@functools.cache
def depth_choices(hidden: int, coding: Coding) -> OffsetArray:
    """Return after how many columns the bound may stop, int64; the last is all of them.

    A depth within a block of columns is possible only where there is no other block.
    """
    blocks, steps = code_columns(hidden, coding) // coding.block, np.arange(1, DEPTHS + 1)
    if blocks == 1:
        depths = np.maximum(1, (coding.block * steps // DEPTHS + 3) // 4) * 4
    else:
        depths = np.maximum(1, blocks * steps // DEPTHS) * coding.block
    return np.unique(depths.astype(np.int64))


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
    choices = depth_choices(hidden, coding).size
    return Plan(
        coding=coding,
        axes=np.eye(hidden),
        shift=-states.mean(axis=0, dtype=np.float64),
        order=np.arange(num_terms, dtype=np.int32),
        depths=np.full(panels, choices - 1, dtype=np.int32),
        beyond=np.ones(choices),
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
    beyond = shared_lengths(decoder, axes, coding)
    places = np.linspace(0, states.shape[0] - 1, 2 * SAMPLE).astype(np.int64)
    some, others = (
        Sample(states[half], axes, shift, coding, beyond) for half in (places[::2], places[1::2])
    )
    everything = np.arange(bias.size, dtype=np.int32)
    early = min(ORDERING_DEPTH, choices.size - 2)
    by_term = some.open_terms(decoder, bias, everything, [early], 1)
    order = np.argsort(-by_term[0], kind="stable").astype(np.int32)
    goes_on = others.open_terms(decoder, bias, order, range(choices.size - 1), TERMS)
    costs = np.full((choices.size, goes_on.shape[1]), float(choices[-1] + COMPARING))
    costs[:-1] = choices[:-1, None] + COMPARING + goes_on * ALONE * choices[-1]
    depths = costs.argmin(axis=0).astype(np.int32)
    if depths.min() == choices.size - 1:
        return None
    # Panels of one depth stand together, so that the processor can expect what comes.
    full = bias.size // TERMS
    ranks = np.argsort(depths[:full], kind="stable")
    order[: full * TERMS] = order[: full * TERMS].reshape(-1, TERMS)[ranks].ravel()
    depths[:full] = depths[ranks]
    return Plan(coding, axes, shift, order, depths, beyond)


def shared_lengths(decoder: FloatArray, axes: DoubleArray, coding: Coding) -> DoubleArray:
    """Choose the length that weights may have beyond each depth, in steps of their codes.

    Longer ones get coarser codes, which costs little until many have to.
    """
    choices = depth_choices(decoder.shape[1], coding)
    every = max(1, len(decoder) // TERMS_AT_ONCE)
    terms = decoder[::every] @ np.linalg.inv(axes).astype(np.float32)
    steps = _steps(terms, coding.largest, coding.longest)
    lengths = [np.quantile(_lengths(terms[:, depth:]) / steps, SHARED) for depth in choices]
    return np.fmax(np.array(lengths, dtype=np.float64), 1.0)


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
    floors = aligned_zeros(places, np.float32)
    floors[:] = NEVER
    screen = Screen(
        coding=plan.coding,
        panels=aligned_zeros(places * columns, np.int8),
        first_sums=aligned_zeros(places * blocks, np.int32),
        early_sums=aligned_zeros(places * blocks, np.int32),
        floors=floors,
        order=np.pad(plan.order, (0, places - num_terms)),
        depths=plan.depths,
        depth_choices=choices,
        beyond=plan.beyond,
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


@dataclass(frozen=True, slots=True)
class Sample:
    """Hidden states that tell how often a term is open: what a bound adds up is a product here.

    For rounding to codes it allows with errors as long as even ones are.
    """

    states: FloatArray  # float32 (N, D)
    axes: DoubleArray
    shift: DoubleArray
    coding: Coding
    beyond: DoubleArray

    def open_terms(
        self,
        decoder: FloatArray,
        bias: FloatArray,
        order: IdArray,
        places: Sequence[int],
        together: int,
    ) -> NDArray[np.float32]:
        """Return how often any of some terms that stand together are open after some depths.

        order: int32 (V,); places: of P depths; together: how many; returns float32 (P, panels),
        from 0 to 1.
        """
        depths = depth_choices(decoder.shape[1], self.coding)[list(places)]
        states = (self.states @ self.axes.T + self.shift).astype(np.float32)
        back = np.linalg.inv(self.axes).astype(np.float32)
        state_step = _steps(states, 127, self.coding.longest)
        count = round_up(order.size, together) // together
        found = np.empty((depths.size, count), dtype=np.float32)
        for first in range(0, order.size, TERMS_AT_ONCE):
            here = order[first : first + TERMS_AT_ONCE]
            terms = decoder[here] @ back
            constant = bias[here] - terms @ self.shift.astype(np.float32)
            finest = _steps(terms, self.coding.largest, self.coding.longest)
            for place, (depth, beyond) in enumerate(zip(depths, self.beyond[list(places)])):
                beyond = np.float32(beyond)
                step = np.maximum(finest, _lengths(terms[:, depth:]) / beyond)
                longest_code = (_lengths(terms[:, :depth]) / step).max()
                rounded = _lengths(states[:, :depth]) + state_step * longest_code
                unsure = np.sqrt(depth / 12) * rounded
                of_states = _with(states[:, :depth], 1, unsure, _lengths(states[:, depth:]))
                of_terms = _with(terms[:, :depth], constant, step, step * beyond)
                is_open = np.pad(of_states @ of_terms.T > 0, [(0, 0), (0, -here.size % together)])
                often = is_open.reshape(len(states), -1, together).any(axis=2).mean(axis=0)
                found[place, first // together :][: often.size] = often
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
