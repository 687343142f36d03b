"""The compiled way through a model: body.py's hidden states to logits, pooled as they are made.

heads.py and pooling.py say what is computed; this gives the same within rounding, and computes few
of the logits. The bytes of a vector depend on its text alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from minisplade.arrays import FloatArray, IdArray, aligned_zeros
from minisplade.kernels import head, layers
from minisplade.kernels.attention import AttentionScratch
from minisplade.kernels.compiler import Bundle
from minisplade.kernels.layers import Scratch
from minisplade.kernels.screen import WAITING, HeadScratch, code_columns
from minisplade.kernels.tiles import LANES, PANEL, ROWS, TERMS, panels_of, round_up
from minisplade.models import MaskedLanguageModel, screening
from minisplade.models.bert import BertConfig
from minisplade.models.body import (
    Body,
    Chunk,
    Shapes,
    cut_chunks,
    norm,
    over_threads,
    pack_body,
    pack_linear,
    plan_rows,
    run_body,
    size_bytes,
    space_shapes,
)
from minisplade.pooling import Activation, Strategy
from minisplade.vectors import SparseVectors, concatenate

LEARN_FROM = 4096
"""Tokens that axes for the screen are learned from."""
LEARN_PART = 4
"""One token in so many is kept for it: learning costs as much as encoding 60 texts, so it waits."""
CHUNK_TEXTS = 32
"""Texts of a chunk at most, because each needs a row of V maxima."""
ACTIVATIONS: dict[Activation, int] = {"relu": head.LOG, "log1p_relu": head.LOG_LOG}


@dataclass(frozen=True, slots=True)
class PackedModel:
    """A model with its weights laid out for the kernels."""

    body: Body
    transform: tuple[FloatArray, FloatArray]
    transform_norm: tuple[FloatArray, FloatArray]
    decoder: FloatArray  # flat (V, D rounded up to LANES), the file's own where that is D
    bias: FloatArray  # (V,)
    screened: bool  # whether a bound rules out most logits, or all are computed
    screens: list[Bundle] = field(default_factory=list)  # of Screen; the last is used
    # Hidden states to learn from, each part with how many there are up to its end.
    seen: list[tuple[int, FloatArray]] = field(default_factory=list)
    learning: list[None] = field(default_factory=lambda: [None])  # empty when that is done
    panels: list[tuple[FloatArray, FloatArray, float]] = field(default_factory=list)  # likewise
    idle: list[Workspace] = field(default_factory=list)

    @property
    def config(self) -> BertConfig:
        """The sizes of the model."""
        return self.body.config

    @property
    def decoder_stride(self) -> int:
        """Columns of the decoder, with those that were added."""
        return self.decoder.size // self.bias.size


@dataclass(frozen=True, slots=True)
class Workspace:
    """The memory that one thread computes a chunk in."""

    max_rows: int
    states: FloatArray  # (rows, D), what the decoder reads
    scratch: Bundle  # Scratch
    attending: Bundle  # AttentionScratch
    head: Bundle  # HeadScratch
    pooled: FloatArray  # (texts, V), all 0 between chunks
    term_ids: IdArray  # (V,)
    weights: FloatArray  # (V,)


def pack_model(model: MaskedLanguageModel, screened: bool) -> PackedModel:
    """Lay out the weights of a model, which stays as it is, for pool_screened or for pool_all."""
    params, config = model.params, model.config
    hidden = config.hidden_size
    decoder = params["head.decoder.weight"]
    if hidden % LANES:
        decoder = np.pad(decoder, [(0, 0), (0, -hidden % LANES)])
    return PackedModel(
        body=pack_body(params, config),
        transform=pack_linear(params, hidden, "head.transform"),
        transform_norm=norm(params, "head.norm"),
        decoder=np.ascontiguousarray(decoder).reshape(-1),
        bias=np.array(params["head.decoder.bias"]),
        screened=screened,
    )


def encode(
    packed: PackedModel,
    sequences: Sequence[IdArray],
    strategy: Strategy,
    activation: Activation,
    num_threads: int,
    max_memory_bytes: int,
) -> SparseVectors:
    """Turn token ids into sparse vectors, in the order of the texts.

    sequences: int32 (T,) each. max_memory_bytes: what all threads together may compute in; fewer
    threads run where it is little. Raises InputError where one text alone needs more.
    """
    vocabulary = packed.config.vocab_size
    if not sequences:
        return concatenate([], vocabulary)
    longest = max(sequence.size for sequence in sequences)
    rows, affordable = plan_rows(longest, lambda r: workspace_bytes(packed, r), max_memory_bytes)
    texts = min(CHUNK_TEXTS, rows // 2)
    chunks = list(cut_chunks(packed.config, sequences, rows, texts))
    workers = max(1, min(num_threads, len(chunks), affordable))

    def run(chunk: Chunk, workspace: Workspace) -> SparseVectors:
        return _encode_chunk(packed, chunk, strategy, activation, workspace)

    # The first chunk of all makes the screen that the others share.
    alone = int(packed.screened and not packed.screens)
    make = partial(_workspace, packed, rows)
    vectors = over_threads(run, chunks[:alone], packed.idle, make, rows, 1)
    vectors += over_threads(run, chunks[alone:], packed.idle, make, rows, workers)
    return concatenate(vectors, vocabulary)


def chosen_logits(packed: PackedModel, input_ids: IdArray, term_ids: IdArray) -> FloatArray:
    """Return the logits of some terms at every token of one text, to the bit as they are pooled.

    input_ids: int32 (T,); term_ids: int32 (P,); returns float32 (T, P). Of sums that is true within
    rounding.
    """
    workspace = _workspace(packed, round_up(input_ids.size, ROWS))
    (chunk,) = cut_chunks(packed.config, [input_ids], input_ids.size, 1)
    _transform(packed, chunk, workspace)
    stride = round_up(packed.config.hidden_size, PANEL)
    logits = np.empty((input_ids.size, term_ids.size), dtype=np.float32)
    decoder = packed.decoder, packed.decoder_stride, packed.bias
    head.score_terms(workspace.states, stride, *decoder, term_ids, logits)
    return logits


def workspace_bytes(packed: PackedModel, rows: int) -> int:
    """Return the memory that one thread needs for chunks of so many tokens, in bytes."""
    return size_bytes(_workspace_shapes(packed, rows))


def _workspace_shapes(packed: PackedModel, rows: int) -> Shapes:
    """Name the arrays of a workspace, with their shapes and types."""
    config = packed.config
    coding = screening.coding_here(config.hidden_size)
    columns = code_columns(config.hidden_size, coding)
    tall, texts = rows + ROWS, min(CHUNK_TEXTS, rows // 2)
    screened = int(packed.screened)
    choices = screening.depth_choices(config.hidden_size, coding).size
    return {
        **space_shapes(config, rows),
        "codes": ((screened * tall * columns,), np.uint8),
        "scales": ((screened * tall,), np.float32),
        "slacks": ((screened * tall * choices,), np.float32),
        "rests": ((screened * tall * choices,), np.float32),
        "waiting": ((WAITING,), np.int64),
        "partial": ((WAITING * TERMS,), np.int32),
        "logits": ((ROWS * PANEL,), np.float32),
        "margins": ((tall,), np.float32),
        "pooled": ((texts, config.vocab_size), np.float32),
        "term_ids": ((config.vocab_size,), np.int32),
        "weights": ((config.vocab_size,), np.float32),
    }


def _workspace(packed: PackedModel, rows: int) -> Workspace:
    shapes = _workspace_shapes(packed, rows)
    arrays: dict[str, Any] = {
        name: aligned_zeros(math.prod(shape), kind).reshape(shape)
        for name, (shape, kind) in shapes.items()
    }
    arrays["turned"] = arrays["wide"]  # which is idle when the head's turn comes
    return Workspace(
        max_rows=rows,
        states=arrays["mixed"],
        scratch=Bundle(Scratch(*(arrays[name] for name in Scratch._fields))),
        attending=Bundle(AttentionScratch(*(arrays[name] for name in AttentionScratch._fields))),
        head=Bundle(HeadScratch(*(arrays[name] for name in HeadScratch._fields))),
        pooled=arrays["pooled"],
        term_ids=arrays["term_ids"],
        weights=arrays["weights"],
    )


def _encode_chunk(
    packed: PackedModel,
    chunk: Chunk,
    strategy: Strategy,
    activation: Activation,
    workspace: Workspace,
) -> SparseVectors:
    """Run one chunk through body, head and pooling."""
    num_texts = chunk.offsets.size - 1
    _transform(packed, chunk, workspace)
    stride = round_up(packed.config.hidden_size, PANEL)
    owners = np.repeat(np.arange(num_texts, dtype=np.int32), np.diff(chunk.offsets))
    states = workspace.states
    decoder = packed.decoder, packed.decoder_stride, packed.bias
    finished = False
    if packed.screened and strategy == "max":
        finished = head.pool_screened(
            states,
            stride,
            packed.config.hidden_size,
            chunk.offsets,
            owners,
            *decoder,
            _screen(packed, chunk, workspace),
            workspace.head,
            workspace.pooled,
        )
    added = strategy == "sum"
    code = ACTIVATIONS[activation]
    if not finished:
        head.pool_all(
            states,
            stride,
            packed.config.hidden_size,
            chunk.offsets,
            owners,
            *decoder,
            *_decoder_panels(packed),
            code,
            added,
            workspace.head,
            workspace.pooled,
        )
    term_ids, weights, ends = [], [], [0]
    for text in range(num_texts):
        count = head.take_active(
            workspace.pooled[text], code, added, workspace.term_ids, workspace.weights
        )
        term_ids.append(workspace.term_ids[:count].copy())
        weights.append(workspace.weights[:count].copy())
        ends.append(ends[-1] + count)
    return SparseVectors(
        np.array(ends, dtype=np.int64),
        np.concatenate(term_ids),
        np.concatenate(weights),
        packed.config.vocab_size,
    )


def _transform(packed: PackedModel, chunk: Chunk, workspace: Workspace) -> None:
    """Leave what the decoder reads in the workspace's mixed rows."""
    run_body(packed.body, chunk, workspace.scratch, workspace.attending)
    layers.transform(
        *packed.transform,
        *packed.transform_norm,
        packed.config.layer_norm_eps,
        round_up(int(chunk.offsets[-1]), ROWS),
        packed.config.hidden_size,
        workspace.scratch,
    )


def _decoder_panels(packed: PackedModel) -> tuple[FloatArray, FloatArray, float]:
    """Return decoder and bias in panels and the length of the longest row, for pool_all."""
    if not packed.panels:
        hidden = packed.config.hidden_size
        decoder = packed.decoder.reshape(packed.bias.size, -1)[:, :hidden]
        longest = float(np.sqrt(np.square(decoder, dtype=np.float64).sum(axis=1).max()))
        bias = np.zeros(round_up(packed.bias.size, PANEL), dtype=np.float32)
        bias[: packed.bias.size] = packed.bias
        packed.panels.append((panels_of(decoder, hidden), bias, longest))
    return packed.panels[0]


def _screen(packed: PackedModel, chunk: Chunk, workspace: Workspace) -> Bundle:
    """Return the Screen to use now; the hidden states of the chunk are the model's to learn from.

    Any screen gives the same vectors. The first is made at once; a quicker one follows when enough
    of the text has passed to know what this model's hidden states are like.
    """
    hidden, rows = packed.config.hidden_size, int(chunk.offsets[-1])
    states = workspace.states.reshape(-1, round_up(hidden, PANEL))[:rows, :hidden]
    decoder = packed.decoder.reshape(packed.bias.size, -1)[:, :hidden]
    if not packed.screens:
        coding = screening.coding_here(hidden)
        plan = screening.first_plan(states, packed.bias.size, coding)
        packed.screens.append(screening.build_screen(plan, decoder, packed.bias))
    if packed.learning:
        part = states[: -(-rows // LEARN_PART)].copy()
        count = sum(before for before, _ in packed.seen[-1:]) + len(part)
        packed.seen.append((count, part))
        if count >= LEARN_FROM:
            _learn(packed, decoder)
    return packed.screens[-1]


def _learn(packed: PackedModel, decoder: FloatArray) -> None:
    """Make the screen that is used from now on, unless another thread is at it."""
    try:
        packed.learning.pop()
    except IndexError:
        return
    seen = np.concatenate([states for _, states in packed.seen])
    packed.seen.clear()
    coding = screening.coding_here(decoder.shape[1])
    plan = screening.learned_plan(seen, decoder, packed.bias, coding)
    if plan is not None:
        packed.screens.append(screening.build_screen(plan, decoder, packed.bias))
