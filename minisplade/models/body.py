"""The compiled encoder: texts packed without padding, over threads, in fixed memory.

bert.py says what is computed; this gives the same within rounding, many times faster. Every row of
a product is summed in an order of its own, so what a text becomes depends on that text alone: not
on batch, order, neighbours or number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from minisplade.arrays import FloatArray, IdArray, OffsetArray, Params, aligned_zeros
from minisplade.errors import InputError
from minisplade.kernels import layers
from minisplade.kernels.attention import EVERYTHING, QUERY_BLOCK, AttentionScratch
from minisplade.kernels.compiler import Bundle, Call
from minisplade.kernels.layers import (
    PASSED_STRIDE,
    ROW_BLOCK,
    Embeddings,
    LayerWeights,
    Scratch,
    Tokens,
)
from minisplade.kernels.rotary import rotary_layer, rotation_tables
from minisplade.kernels.tiles import PANEL, ROWS, panels_of, round_up
from minisplade.models.bert import BertConfig

CHUNK_ROWS = 2 * ROW_BLOCK
"""Tokens of a chunk, unless one text has more: enough to make up for reading all weights once."""

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]
"""Arrays by name, with their shapes and types."""


@dataclass(frozen=True, slots=True)
class Body:
    """An encoder with its weights laid out for the kernels."""

    config: BertConfig
    embeddings: Bundle  # Embeddings, as in the file
    layers: tuple[Bundle, ...]  # of LayerWeights
    final_norm: tuple[FloatArray, FloatArray]  # (0,) each where there is none
    rotations: Mapping[float, tuple[FloatArray, FloatArray]]  # cosines and sines by their base
    idle: list[BodySpace] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BodySpace:
    """The memory that one thread runs an encoder in, and how it goes from tokens to states."""

    max_rows: int
    tokens: Bundle  # Tokens
    scratch: Bundle  # Scratch
    steps: tuple[Call, ...]  # which leave the hidden states in scratch.states, a row a token


def can_pack(config: BertConfig) -> bool:
    """Tell whether the kernels know all that a model does; else only bert.py does."""
    return not (config.embedding_size or config.shared_layers or config.tanh_gelu)


def pack_body(params: Params, config: BertConfig) -> Body:
    """Lay out the weights of an encoder, which stay as they are."""
    nothing = np.zeros((1, config.hidden_size), dtype=np.float32)
    size = config.hidden_size // config.num_heads
    return Body(
        config=config,
        embeddings=Bundle(
            Embeddings(
                np.ascontiguousarray(params["embeddings.word.weight"]),
                np.ascontiguousarray(params.get("embeddings.position.weight", nothing)),
                np.ascontiguousarray(params.get("embeddings.token_type.weight", nothing)),
                *norm(params, "embeddings.norm"),
            )
        ),
        layers=tuple(Bundle(_pack_layer(params, config, i)) for i in range(config.num_layers)),
        final_norm=norm(params, "final_norm"),
        rotations={
            base: rotation_tables(config.max_positions, size, base, config.rotary_scaling)
            for base in set(config.rotary_bases)
        },
    )


def space_shapes(config: BertConfig, rows: int, texts: int) -> Shapes:
    """Name the arrays that chunks of so many tokens and texts are computed in."""
    hidden = round_up(config.hidden_size, PANEL)
    inner = round_up(config.intermediate_size, PANEL) * (2 if config.gated else 1)
    inner = max(round_up(3 * config.hidden_size, PANEL), inner)
    one_head = round_up(config.hidden_size // config.num_heads, PANEL)
    # Attention reads whole tiles from any row on.
    tall, long = rows + ROWS, round_up(min(rows, config.max_positions), PANEL)
    return {
        "input_ids": ((rows,), np.int32),
        "types": ((rows,), np.int32),
        "offsets": ((texts + 1,), np.int64),
        "places": ((rows,), np.int32),
        "owners": ((rows,), np.int32),
        "states": ((tall * hidden,), np.float32),
        "wide": ((tall * inner,), np.float32),
        "mixed": ((tall * hidden,), np.float32),
        "keys": ((long * one_head,), np.float32),
        "values": ((long * one_head,), np.float32),
        "scores": ((QUERY_BLOCK * long,), np.float32),
        "sums": ((QUERY_BLOCK * one_head,), np.float32),
        "block": ((ROW_BLOCK * PASSED_STRIDE,), np.float32),
    }


def size_bytes(shapes: Shapes) -> int:
    """Return the memory that arrays of such shapes take, in bytes."""
    return sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in shapes.values())


def make_arrays(shapes: Shapes) -> dict[str, Any]:
    """Allocate arrays of such shapes, filled with 0."""
    return {
        name: aligned_zeros(math.prod(shape), kind).reshape(shape)
        for name, (shape, kind) in shapes.items()
    }


def bundled(kind: Any, arrays: Mapping[str, Any]) -> Bundle:
    """Bundle the arrays that a named tuple has fields for."""
    return Bundle(kind(*(arrays[name] for name in kind._fields)))


def make_space(body: Body, rows: int, arrays: Mapping[str, Any]) -> BodySpace:
    """Put together the memory for chunks of so many tokens; arrays: those of space_shapes."""
    tokens, scratch = bundled(Tokens, arrays), bundled(Scratch, arrays)
    steps = _steps(body, tokens, scratch, bundled(AttentionScratch, arrays))
    return BodySpace(rows, tokens, scratch, tuple(steps))


def _steps(body: Body, tokens: Bundle, scratch: Bundle, attending: Bundle) -> Iterator[Call]:
    """Prepare the calls that run an encoder."""
    config, hidden, eps = body.config, body.config.hidden_size, body.config.layer_norm_eps
    ids = config.position_offset, config.pad_token_id
    stride = round_up(hidden, PANEL)
    yield layers.embed.bound(tokens, body.embeddings, *ids, eps, scratch, stride)
    for layer, weights in enumerate(body.layers):
        start = weights, config.num_heads, eps, tokens
        if not config.rotary_bases:
            yield layers.encoder_layer.bound(*start, hidden, scratch, attending)
            continue
        window = config.windows[layer] if config.windows else None
        yield rotary_layer.bound(
            *start,
            *body.rotations[config.rotary_bases[layer]],
            EVERYTHING if window is None else window,
            config.pre_norm,
            hidden,
            scratch,
            attending,
        )
    if config.pre_norm:
        yield layers.final_norm.bound(*body.final_norm, eps, tokens, hidden, scratch)


def run_body(
    space: BodySpace, sequences: Sequence[IdArray], types: Sequence[IdArray] | None = None
) -> int:
    """Leave the hidden states of a chunk in scratch.states; returns how many tokens there are.

    sequences, types: int32 (T,) each; no types is the first for all.
    """
    tokens = cast(Tokens, space.tokens.value)
    ends = list(accumulate(sequence.size for sequence in sequences))
    count = ends[-1]
    tokens.offsets[1 : len(ends) + 1] = ends
    tokens.offsets[len(ends) + 1 :] = count
    np.concatenate(sequences, out=tokens.input_ids[:count])
    if types:
        np.concatenate(types, out=tokens.types[:count])
    else:
        tokens.types[:count] = 0
    for step in space.steps:
        step()
    return count


def encode_tokens(
    body: Body,
    sequences: Sequence[IdArray],
    weigh: Callable[[FloatArray], FloatArray],
    num_threads: int,
    max_memory_bytes: int,
) -> list[FloatArray]:
    """Return what weigh makes of the hidden states (T, D) of each text, its first axis being T.

    max_memory_bytes: what all threads together may compute in. Raises InputError where one text
    alone needs more.
    """

    def take(states: FloatArray, offsets: OffsetArray) -> list[FloatArray]:
        return np.split(weigh(states), offsets[1:-1])

    return _map_states(body, sequences, None, take, num_threads, max_memory_bytes)


def encode_firsts(
    body: Body,
    sequences: Sequence[IdArray],
    types: Sequence[IdArray],
    num_threads: int,
    max_memory_bytes: int,
) -> FloatArray:
    """Return the hidden state of the first token of each text, float32 (B, D).

    types: the token types, int32 (T,) each. Others as in encode_tokens.
    """

    def take(states: FloatArray, offsets: OffsetArray) -> list[FloatArray]:
        return list(states[offsets[:-1]])

    return np.stack(_map_states(body, sequences, types, take, num_threads, max_memory_bytes))


def _map_states(
    body: Body,
    sequences: Sequence[IdArray],
    types: Sequence[IdArray] | None,
    take: Callable[[FloatArray, OffsetArray], list[FloatArray]],
    num_threads: int,
    max_memory_bytes: int,
) -> list[FloatArray]:
    """Run texts and keep what take makes of hidden states (N, D), one copy a text."""
    config = body.config
    stride = round_up(config.hidden_size, PANEL)
    longest = max(sequence.size for sequence in sequences)
    rows, affordable = plan_rows(
        longest, lambda rows: size_bytes(space_shapes(config, rows, rows)), max_memory_bytes
    )
    chunks = cut_chunks(sequences, rows, rows)

    def run(chunk: slice, space: BodySpace) -> list[FloatArray]:
        count = run_body(space, sequences[chunk], types and types[chunk])
        states = cast(Scratch, space.scratch.value).states
        states = states[: states.size // stride * stride].reshape(-1, stride)
        offsets = cast(Tokens, space.tokens.value).offsets[: len(sequences[chunk]) + 1]
        taken = take(states[:count, : config.hidden_size], offsets)
        return [array.copy() for array in taken]

    def make() -> BodySpace:
        return make_space(body, rows, make_arrays(space_shapes(config, rows, rows)))

    workers = max(1, min(num_threads, len(chunks), affordable))
    return list(chain.from_iterable(over_threads(run, chunks, body.idle, make, rows, workers)))


class Space(Protocol):
    """What a thread computes in."""

    @property
    def max_rows(self) -> int:
        """Tokens that a chunk may have."""


SpaceT = TypeVar("SpaceT", bound=Space)
ResultT = TypeVar("ResultT")


def over_threads(
    run: Callable[[slice, SpaceT], ResultT],
    chunks: Sequence[slice],
    idle: list[SpaceT],
    make: Callable[[], SpaceT],
    rows: int,
    num_threads: int,
) -> list[ResultT]:
    """Run chunks in their order over threads, with memory that is kept between calls."""

    def run_one(chunk: slice) -> ResultT:
        # Lists are appended to and popped from atomically: no lock that a fork could leave held.
        try:
            space = idle.pop()
        except IndexError:
            space = make()
        if space.max_rows < rows:
            space = make()
        result = run(chunk, space)
        # One that was left half-way, by Ctrl-C say, may hold chunks of that text: it is let go.
        if len(idle) < num_threads:
            idle.append(space)
        return result

    if num_threads == 1:
        return [run_one(chunk) for chunk in chunks]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(run_one, chunks))


def plan_rows(
    longest: int, needed_bytes: Callable[[int], int], max_memory_bytes: int
) -> tuple[int, int]:
    """Return how many tokens a chunk may have, and how many threads have the memory for one.

    Raises InputError where one text of the longest number of tokens needs more.
    """
    rows = round_up(max(longest, CHUNK_ROWS), ROWS)
    needed = needed_bytes(rows)
    if needed > max_memory_bytes:
        rows = round_up(longest, ROWS)
        needed = needed_bytes(rows)
    if needed > max_memory_bytes:
        raise InputError(
            f"a text of {longest} tokens needs {needed / 1e6:.0f} MB to encode, and max_memory_mb "
            f"leaves {max_memory_bytes / 1e6:.0f}; raise max_memory_mb or lower max_seq_length"
        )
    return rows, max_memory_bytes // needed


def cut_chunks(sequences: Sequence[IdArray], rows: int, texts: int) -> list[slice]:
    """Put texts together, in order, as long as they fit; returns which make up each chunk.

    sequences: int32 (T,) each. rows, texts: most of each.
    """
    chunks = []
    first = total = 0
    for last, sequence in enumerate(sequences):
        if last - first == texts or total + sequence.size > rows:
            chunks.append(slice(first, last))
            first, total = last, 0
        total += sequence.size
    return [*chunks, slice(first, len(sequences))]


def _pack_layer(params: Params, config: BertConfig, layer: int) -> LayerWeights:
    block, hidden = f"layers.{layer}", config.hidden_size
    inner = round_up(config.intermediate_size, PANEL)
    roles = [f"{block}.attention.{role}" for role in ("query", "key", "value")]
    ups = [f"{block}.feed_forward.{role}" for role in (("gate", "up") if config.gated else ("up",))]
    return LayerWeights(
        *pack_linear(params, hidden, *roles),
        *pack_linear(params, hidden, f"{block}.attention.output"),
        *norm(params, f"{block}.attention_norm"),
        *pack_linear(params, hidden, *ups, unit=PANEL),
        *pack_linear(params, inner, f"{block}.feed_forward.down"),
        *norm(params, f"{block}.feed_forward_norm"),
    )


def pack_linear(
    params: Params, size_in: int, *names: str, unit: int = 1
) -> tuple[FloatArray, FloatArray]:
    """Stack linear layers and cut them into flat panels (out / PANEL, size_in, PANEL).

    unit: what the size of each layer is rounded up to, with zeros. One without a bias gets 0.
    """
    weights, biases = [], []
    for name in names:
        weight, bias = params[f"{name}.weight"], _bias(params, name)
        weights.append(np.pad(weight, [(0, -bias.size % unit), (0, 0)]))
        biases.append(np.pad(bias, (0, -bias.size % unit)))
    stacked = np.concatenate(biases)
    return panels_of(np.concatenate(weights), size_in), np.pad(stacked, (0, -stacked.size % PANEL))


def norm(params: Params, name: str) -> tuple[FloatArray, FloatArray]:
    """Return a norm's weight and bias, 0 if it has none; (0,) each where there is no norm."""
    if f"{name}.weight" not in params:
        return np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32)
    return np.array(params[f"{name}.weight"]), np.array(_bias(params, name))


def _bias(params: Params, name: str) -> FloatArray:
    weight = params[f"{name}.weight"]
    return params.get(f"{name}.bias", np.zeros(weight.shape[0], dtype=np.float32))
