"""The compiled way through a model: texts packed without padding, over threads, in fixed memory.

bert.py and heads.py say what is computed; this gives the same within rounding, many times faster.
Every row of a product is summed in an order of its own, so the bytes of a vector depend on its
text alone: not on batch, order, neighbours or number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minisplade.arrays import FloatArray, IdArray, OffsetArray, Params
from minisplade.errors import InputError
from minisplade.kernels import head, layers
from minisplade.kernels.attention import QUERY_BLOCK, AttentionScratch
from minisplade.kernels.compiler import Bundle
from minisplade.kernels.head import HeadScratch
from minisplade.kernels.layers import PASSED_STRIDE, ROW_BLOCK, LayerWeights, Scratch
from minisplade.kernels.tiles import LANES, PANEL, ROWS, TERMS, panels_of, round_up
from minisplade.models import MaskedLanguageModel, screening
from minisplade.models.bert import BertConfig
from minisplade.pooling import Activation, Strategy
from minisplade.vectors import SparseVectors, concatenate

CHUNK_ROWS = 2 * ROW_BLOCK
"""Tokens of a chunk, unless one text has more: enough to make up for reading all weights once."""
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

    config: BertConfig
    word: FloatArray  # (V, D), as in the file
    position: FloatArray  # (max_positions, D), as in the file
    token_type: FloatArray  # (D,)
    embedding_norm: tuple[FloatArray, FloatArray]
    layers: tuple[Bundle, ...]  # of LayerWeights
    transform: tuple[FloatArray, FloatArray]
    transform_norm: tuple[FloatArray, FloatArray]
    decoder: FloatArray  # flat (V, D rounded up to LANES), the file's own where that is D
    bias: FloatArray  # (V,)
    screened: bool  # whether a bound rules out most logits, or all are computed
    screens: list[Bundle] = field(default_factory=list)  # of Screen; the last is used
    seen: list[FloatArray] = field(default_factory=list)  # hidden states, to make a better one
    learning: list[None] = field(default_factory=lambda: [None])  # empty when that is done
    panels: list[tuple[FloatArray, FloatArray, float]] = field(default_factory=list)  # likewise
    idle: list[Workspace] = field(default_factory=list)

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


@dataclass(frozen=True, slots=True)
class Chunk:
    """Token ids of some texts, one after another."""

    input_ids: IdArray  # int32 (N,)
    offsets: OffsetArray  # int64 (B + 1,)


def pack_model(model: MaskedLanguageModel, screened: bool) -> PackedModel:
    """Lay out the weights of a model, which stays as it is, for pool_screened or for pool_all."""
    params, config = model.params, model.config
    hidden = config.hidden_size
    decoder = params["head.decoder.weight"]
    if hidden % LANES:
        decoder = _padded(decoder, columns=round_up(hidden, LANES))
    token_type = np.zeros(hidden, dtype=np.float32)
    if config.num_token_types:
        # SPLADE reads one text at a time, so every token is of the first type.
        token_type += params["embeddings.token_type.weight"][0]
    return PackedModel(
        config=config,
        word=np.ascontiguousarray(params["embeddings.word.weight"]),
        position=np.ascontiguousarray(params["embeddings.position.weight"]),
        token_type=token_type,
        embedding_norm=_norm(params, "embeddings.norm"),
        layers=tuple(Bundle(_pack_layer(params, config, i)) for i in range(config.num_layers)),
        transform=_pack_linear(params, hidden, "head.transform"),
        transform_norm=_norm(params, "head.norm"),
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
    rows = round_up(max(longest, CHUNK_ROWS), ROWS)
    needed = workspace_bytes(packed, rows)
    if needed > max_memory_bytes:
        rows = round_up(longest, ROWS)
        needed = workspace_bytes(packed, rows)
    if needed > max_memory_bytes:
        raise InputError(
            f"a text of {longest} tokens needs {needed / 1e6:.0f} MB to encode, and max_memory_mb "
            f"leaves {max_memory_bytes / 1e6:.0f}; raise max_memory_mb or lower max_seq_length"
        )
    chunks = list(_chunks(sequences, rows))
    workers = max(1, min(num_threads, len(chunks), max_memory_bytes // needed))

    def run(chunk: Chunk) -> SparseVectors:
        # Lists are appended to and popped from atomically: no lock that a fork could leave held.
        try:
            workspace = packed.idle.pop()
        except IndexError:
            workspace = _workspace(packed, rows)
        if workspace.max_rows < rows:
            workspace = _workspace(packed, rows)
        vectors = _encode_chunk(packed, chunk, strategy, activation, workspace)
        # One that was left half-way, by Ctrl-C say, holds maxima of that text: it is let go.
        if len(packed.idle) < workers:
            packed.idle.append(workspace)
        return vectors

    # The first chunk of all makes the screen that the others share.
    alone = len(chunks) if workers == 1 else int(packed.screened and not packed.screens)
    vectors = [run(chunk) for chunk in chunks[:alone]]
    if alone < len(chunks):
        with ThreadPoolExecutor(workers) as pool:
            vectors += pool.map(run, chunks[alone:])
    return concatenate(vectors, vocabulary)


def chosen_logits(packed: PackedModel, input_ids: IdArray, term_ids: IdArray) -> FloatArray:
    """Return the logits of some terms at every token of one text, to the bit as they are pooled.

    input_ids: int32 (T,); term_ids: int32 (P,); returns float32 (T, P). Of sums that is true within
    rounding.
    """
    workspace = _workspace(packed, round_up(input_ids.size, ROWS))
    _transform(packed, _chunk([input_ids]), workspace)
    stride = round_up(packed.config.hidden_size, PANEL)
    logits = np.empty((input_ids.size, term_ids.size), dtype=np.float32)
    decoder = packed.decoder, packed.decoder_stride, packed.bias
    head.score_terms(workspace.states, stride, *decoder, term_ids, logits)
    return logits


def workspace_bytes(packed: PackedModel, rows: int) -> int:
    """Return the memory that one thread needs for chunks of so many tokens, in bytes."""
    return sum(
        math.prod(shape) * np.dtype(kind).itemsize
        for shape, kind in _workspace_shapes(packed, rows).values()
    )


def _workspace_shapes(packed: PackedModel, rows: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Name the arrays of a workspace, with their shapes and types."""
    config = packed.config
    hidden = round_up(config.hidden_size, PANEL)
    inner = round_up(max(3 * config.hidden_size, config.intermediate_size), PANEL)
    one_head = round_up(config.hidden_size // config.num_heads, PANEL)
    coding = screening.coding_here(config.hidden_size)
    columns = head.code_columns(config.hidden_size, coding)
    # Attention reads whole tiles from any row on.
    tall, long = rows + ROWS, round_up(min(rows, config.max_positions), PANEL)
    texts = min(CHUNK_TEXTS, rows // 2)
    screened, choices = (
        int(packed.screened),
        screening.depth_choices(config.hidden_size, coding).size,
    )
    return {
        "states": ((tall * hidden,), np.float32),
        "wide": ((tall * inner,), np.float32),
        "mixed": ((tall * hidden,), np.float32),
        "keys": ((long * one_head,), np.float32),
        "values": ((long * one_head,), np.float32),
        "scores": ((QUERY_BLOCK * long,), np.float32),
        "sums": ((QUERY_BLOCK * one_head,), np.float32),
        "block": ((ROW_BLOCK * PASSED_STRIDE,), np.float32),
        "codes": ((screened * tall * columns,), np.uint8),
        "scales": ((screened * tall,), np.float32),
        "slacks": ((screened * tall * choices,), np.float32),
        "rests": ((screened * tall * choices,), np.float32),
        "hits": ((ROWS * TERMS // 8,), np.uint8),
        "logits": ((ROWS * PANEL,), np.float32),
        "margins": ((tall,), np.float32),
        "pooled": ((texts, config.vocab_size), np.float32),
        "term_ids": ((config.vocab_size,), np.int32),
        "weights": ((config.vocab_size,), np.float32),
    }


def _workspace(packed: PackedModel, rows: int) -> Workspace:
    shapes = _workspace_shapes(packed, rows)
    arrays = {name: np.zeros(shape, kind) for name, (shape, kind) in shapes.items()}
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


def _chunks(sequences: Sequence[IdArray], rows: int) -> Iterator[Chunk]:
    """Put texts together, in order, as long as they fit."""
    texts = min(CHUNK_TEXTS, rows // 2)
    taken: list[IdArray] = []
    for sequence in sequences:
        if len(taken) == texts or sum(s.size for s in taken) + sequence.size > rows:
            yield _chunk(taken)
            taken = []
        taken.append(sequence)
    yield _chunk(taken)


def _chunk(sequences: list[IdArray]) -> Chunk:
    offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([sequence.size for sequence in sequences], out=offsets[1:])
    return Chunk(np.concatenate(sequences), offsets)


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
    config, scratch = packed.config, workspace.scratch
    hidden, eps = config.hidden_size, config.layer_norm_eps
    layers.embed(
        chunk.input_ids,
        chunk.offsets,
        packed.word,
        packed.position,
        packed.token_type,
        *packed.embedding_norm,
        eps,
        scratch,
        round_up(hidden, PANEL),
    )
    for weights in packed.layers:
        layers.encoder_layer(
            weights, config.num_heads, eps, chunk.offsets, hidden, scratch, workspace.attending
        )
    rows = round_up(int(chunk.offsets[-1]), ROWS)
    layers.transform(*packed.transform, *packed.transform_norm, eps, rows, hidden, scratch)


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


def _pack_layer(params: Params, config: BertConfig, layer: int) -> LayerWeights:
    block, hidden = f"layers.{layer}", config.hidden_size
    inner = round_up(config.intermediate_size, PANEL)
    roles = [f"{block}.attention.{role}" for role in ("query", "key", "value")]
    return LayerWeights(
        *_pack_linear(params, hidden, *roles),
        *_pack_linear(params, hidden, f"{block}.attention.output"),
        *_norm(params, f"{block}.attention_norm"),
        *_pack_linear(params, hidden, f"{block}.feed_forward.up"),
        *_pack_linear(params, inner, f"{block}.feed_forward.down"),
        *_norm(params, f"{block}.feed_forward_norm"),
    )


def _pack_linear(params: Params, size_in: int, *names: str) -> tuple[FloatArray, FloatArray]:
    """Stack linear layers and cut them into flat panels (out / PANEL, size_in, PANEL)."""
    weight = np.concatenate([params[f"{name}.weight"] for name in names])
    bias = np.concatenate([params[f"{name}.bias"] for name in names])
    size_out = round_up(bias.size, PANEL)
    return panels_of(weight, size_in), np.pad(bias, (0, size_out - bias.size))


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
        packed.seen.append(states[: -(-rows // LEARN_PART)].copy())
        if sum(len(part) for part in packed.seen) >= LEARN_FROM:
            _learn(packed, decoder)
    return packed.screens[-1]


def _learn(packed: PackedModel, decoder: FloatArray) -> None:
    """Make the screen that is used from now on, unless another thread is at it."""
    try:
        packed.learning.pop()
    except IndexError:
        return
    seen = np.concatenate(packed.seen)
    packed.seen.clear()
    coding = screening.coding_here(decoder.shape[1])
    plan = screening.learned_plan(seen, decoder, packed.bias, coding)
    if plan is not None:
        packed.screens.append(screening.build_screen(plan, decoder, packed.bias))


def _norm(params: Params, name: str) -> tuple[FloatArray, FloatArray]:
    return np.array(params[f"{name}.weight"]), np.array(params[f"{name}.bias"])


def _padded(matrix: FloatArray, rows: int = 0, columns: int = 0) -> FloatArray:
    """Add zeros below and to the right until there are so many rows and columns."""
    missing = [max(0, size - have) for size, have in zip((rows, columns), matrix.shape)]
    return np.pad(matrix, [(0, missing[0]), (0, missing[1])])
