"""The compiled way through a model: body.py's hidden states to logits, pooled as they are made.

heads.py and pooling.py say what is computed; this gives the same within rounding, and computes few
of the logits. The bytes of a vector depend on its text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from minisplade.arrays import FloatArray, IdArray
from minisplade.kernels import head, layers
from minisplade.kernels.compiler import Bundle, Call
from minisplade.kernels.layers import TransformWeights
from minisplade.kernels.screen import WAITING, HeadScratch, code_columns
from minisplade.kernels.tiles import LANES, PANEL, ROWS, panels_of, round_up
from minisplade.models import MaskedLanguageModel, screening
from minisplade.models.bert import BertConfig
from minisplade.models.body import (
    Body,
    BodySpace,
    Shapes,
    bundled,
    cut_chunks,
    make_arrays,
    make_space,
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
    transform: Bundle  # TransformWeights
    decoder: Bundle  # float32, flat (V, D rounded up to LANES), the file's own where that is D
    decoder_stride: int  # D rounded up to LANES
    bias: Bundle  # float32 (V,)
    screened: bool  # whether a bound rules out most logits, or all are computed
    screens: list[Bundle] = field(default_factory=list)  # of Screen; the last is used
    # Hidden states to learn from, each part with how many there are up to its end.
    seen: list[tuple[int, FloatArray]] = field(default_factory=list)
    learning: list[None] = field(default_factory=lambda: [None])  # empty when that is done
    panels: list[tuple[Bundle, Bundle, float]] = field(default_factory=list)  # one, when needed
    sizes: dict[int, int] = field(default_factory=dict)  # bytes of a workspace, by its rows
    idle: list[Workspace] = field(default_factory=list)

    @property
    def config(self) -> BertConfig:
        """The sizes of the model."""
        return self.body.config

    @property
    def decoder_rows(self) -> FloatArray:
        """The decoder (V, D), without what was added."""
        rows: FloatArray = self.decoder.value.reshape(-1, self.decoder_stride)
        return rows[:, : self.config.hidden_size]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The memory that one thread computes a chunk in."""

    body: BodySpace
    transform: Call  # from body.scratch's states to those below
    offsets: Bundle  # of body.tokens
    owners: Bundle  # likewise
    states: Bundle  # float32 (rows, D), flat, what the decoder reads
    head: Bundle  # HeadScratch
    pooled: Bundle  # float32 (texts, V), all 0 between chunks
    pooled_rows: tuple[Bundle, ...]  # float32 (V,), the same text by text
    term_ids: Bundle  # int32 (V,)
    weights: Bundle  # float32 (V,)

    @property
    def max_rows(self) -> int:
        """Tokens that a chunk may have."""
        return self.body.max_rows


def pack_model(model: MaskedLanguageModel, screened: bool) -> PackedModel:
    """Lay out the weights of a model, which stays as it is, for pool_screened or for pool_all."""
    params, config = model.params, model.config
    hidden = config.hidden_size
    decoder = params["head.decoder.weight"]
    if hidden % LANES:
        decoder = np.pad(decoder, [(0, 0), (0, -hidden % LANES)])
    return PackedModel(
        body=pack_body(params, config),
        transform=Bundle(
            TransformWeights(
                *pack_linear(params, hidden, "head.transform"), *norm(params, "head.norm")
            )
        ),
        decoder=Bundle(np.ascontiguousarray(decoder).reshape(-1)),
        decoder_stride=decoder.shape[1],
        bias=Bundle(np.array(params["head.decoder.bias"])),
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
    chunks = cut_chunks(sequences, rows, texts)
    workers = max(1, min(num_threads, len(chunks), affordable))

    def run(chunk: slice, workspace: Workspace) -> SparseVectors:
        return _encode_chunk(packed, sequences[chunk], strategy, activation, workspace)

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
    _transform([input_ids], workspace)
    stride = round_up(packed.config.hidden_size, PANEL)
    logits = np.empty((input_ids.size, term_ids.size), dtype=np.float32)
    decoder = packed.decoder, packed.decoder_stride, packed.bias
    head.score_terms(workspace.states, stride, *decoder, term_ids, logits)
    return logits


def workspace_bytes(packed: PackedModel, rows: int) -> int:
    """Return the memory that one thread needs for chunks of so many tokens, in bytes."""
    if rows not in packed.sizes:
        packed.sizes[rows] = size_bytes(_workspace_shapes(packed, rows))
    return packed.sizes[rows]


def _workspace_shapes(packed: PackedModel, rows: int) -> Shapes:
    """Name the arrays of a workspace, with their shapes and types."""
    config = packed.config
    coding = screening.coding_here(config.hidden_size)
    columns = code_columns(config.hidden_size, coding)
    tall, texts = rows + ROWS, min(CHUNK_TEXTS, rows // 2)
    screened = int(packed.screened)
    choices = screening.depth_choices(config.hidden_size, coding).size
    space = space_shapes(config, rows, texts)
    own = {
        "codes": ((screened * tall * columns,), np.uint8),
        "scales": ((screened * tall,), np.float32),
        "slacks": ((screened * tall * choices,), np.float32),
        "waiting": ((WAITING,), np.int64),
        "logits": ((ROWS * PANEL,), np.float32),
        "margins": ((tall,), np.float32),
        "pooled": ((texts, config.vocab_size), np.float32),
        "term_ids": ((config.vocab_size,), np.int32),
        "weights": ((config.vocab_size,), np.float32),
    }
    assert not space.keys() & own.keys()
    return {**space, **own}


def _workspace(packed: PackedModel, rows: int) -> Workspace:
    arrays = make_arrays(_workspace_shapes(packed, rows))
    arrays["turned"] = arrays["wide"]  # which is idle when the head's turn comes
    config = packed.config
    body, weights = make_space(packed.body, rows, arrays), (packed.transform, config.layer_norm_eps)
    return Workspace(
        body=body,
        transform=layers.transform.bound(*weights, body.tokens, config.hidden_size, body.scratch),
        offsets=Bundle(arrays["offsets"]),
        owners=Bundle(arrays["owners"]),
        states=Bundle(arrays["mixed"]),
        head=bundled(HeadScratch, arrays),
        pooled=Bundle(arrays["pooled"]),
        pooled_rows=tuple(map(Bundle, arrays["pooled"])),
        term_ids=Bundle(arrays["term_ids"]),
        weights=Bundle(arrays["weights"]),
    )


def _encode_chunk(
    packed: PackedModel,
    sequences: Sequence[IdArray],
    strategy: Strategy,
    activation: Activation,
    workspace: Workspace,
) -> SparseVectors:
    """Run one chunk through body, head and pooling."""
    count = _transform(sequences, workspace)
    hidden = packed.config.hidden_size
    states = workspace.states, round_up(hidden, PANEL), hidden, workspace.offsets, workspace.owners
    decoder = packed.decoder, packed.decoder_stride, packed.bias
    finished = False
    if packed.screened and strategy == "max":
        screen = _screen(packed, count, workspace)
        finished = head.pool_screened(*states, *decoder, screen, workspace.head, workspace.pooled)
    added = strategy == "sum"
    code = ACTIVATIONS[activation]
    if not finished:
        panels = _decoder_panels(packed)
        head.pool_all(*states, *decoder, *panels, code, added, workspace.head, workspace.pooled)
    term_ids, weights, ends = [], [], [0]
    for pooled in workspace.pooled_rows[: len(sequences)]:
        found = head.take_active(pooled, code, added, workspace.term_ids, workspace.weights)
        term_ids.append(workspace.term_ids.value[:found].copy())
        weights.append(workspace.weights.value[:found].copy())
        ends.append(ends[-1] + found)
    return SparseVectors(
        np.array(ends, dtype=np.int64),
        np.concatenate(term_ids),
        np.concatenate(weights),
        packed.config.vocab_size,
    )


def _transform(sequences: Sequence[IdArray], workspace: Workspace) -> int:
    """Leave what the decoder reads in the workspace's states; returns the number of tokens."""
    count = run_body(workspace.body, sequences)
    workspace.transform()
    return count


def _decoder_panels(packed: PackedModel) -> tuple[Bundle, Bundle, float]:
    """Return decoder and bias in panels and the length of the longest row, for pool_all."""
    if not packed.panels:
        decoder, bias = packed.decoder_rows, packed.bias.value
        longest = float(np.sqrt(np.square(decoder, dtype=np.float64).sum(axis=1).max()))
        whole = np.zeros(round_up(bias.size, PANEL), dtype=np.float32)
        whole[: bias.size] = bias
        panels = panels_of(decoder, packed.config.hidden_size)
        packed.panels.append((Bundle(panels), Bundle(whole), longest))
    return packed.panels[0]


def _screen(packed: PackedModel, rows: int, workspace: Workspace) -> Bundle:
    """Return the Screen to use now; the first rows of states are the model's to learn from.

    Any screen gives the same vectors. The first is made at once; a quicker one follows when enough
    of the text has passed to know what this model's hidden states are like.
    """
    if packed.screens and not packed.learning:
        return packed.screens[-1]
    hidden = packed.config.hidden_size
    states = workspace.states.value.reshape(-1, round_up(hidden, PANEL))[:rows, :hidden]
    decoder, bias = packed.decoder_rows, packed.bias.value
    if not packed.screens:
        plan = screening.first_plan(states, bias.size, screening.coding_here(hidden))
        packed.screens.append(screening.build_screen(plan, decoder, bias))
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
    plan = screening.learned_plan(seen, decoder, packed.bias.value, coding)
    if plan is not None:
        packed.screens.append(screening.build_screen(plan, decoder, packed.bias.value))
