"""Routes from text to sparse vector: each of the ways that layout.py finds, loaded and ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from tokenizers import Tokenizer

from minisplade.arrays import FloatArray, IdArray
from minisplade.checkpoint import open_file, read_json
from minisplade.errors import CheckpointError
from minisplade.layout import SpladeWay, StaticWay, TokenWay, Way, read_optional
from minisplade.models import load_model, load_token_weigher
from minisplade.models.bert import BertConfig
from minisplade.pooling import chosen_logits, pool_tiles
from minisplade.runtime import KernelPath
from minisplade.tokenization import batches_by_length, pad, tokenize
from minisplade.vectors import SparseVectors, concatenate
from minisplade.vocabularies import (
    BYTE_PAIR_TOKENS,
    WORD_PIECE_TOKENS,
    expect_fit,
    largest_id,
    load_tokenizer,
)

if TYPE_CHECKING:
    from minisplade.models.body import Body
    from minisplade.models.packed import PackedModel

NO_LIMIT = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Effort:
    """How much may go into encoding some texts."""

    batch_size: int  # of the kernel path "reference"
    num_threads: int
    max_memory_bytes: int


def usable_path(config: BertConfig, wanted: KernelPath) -> KernelPath:
    """Return the kernel path that a model can take: the wanted one, or "reference"."""
    if wanted == "reference":
        return wanted
    from minisplade.models.body import can_pack

    return wanted if can_pack(config) else "reference"


class SpladeRoute:
    """A masked language model whose logits are pooled."""

    special_tokens = True

    def __init__(self, way: SpladeWay, kernel_path: KernelPath) -> None:
        """Load model and tokenizer; raises CheckpointError."""
        self.way = way
        self.model = load_model(way.folder)
        self.config = config = self.model.config
        self.kernel_path = usable_path(config, kernel_path)
        self.tokenizer = load_tokenizer(way.folder, config.vocab_size, way.lower_case)
        self.num_terms = config.vocab_size
        self.longest = config.max_positions
        self.max_seq_length = min(way.max_seq_length or self.longest, self.longest)
        self.restriction: FloatArray | None = None
        if way.restriction:
            tokenizer = load_tokenizer(way.restriction.folder, self.num_terms)
            self.restriction = read_token_weights(way.restriction, tokenizer, self.num_terms)

    @cached_property
    def packed(self) -> PackedModel:
        """The model laid out for the kernels."""
        from minisplade.models.packed import pack_model

        return pack_model(self.model, screened=self.kernel_path == "screened")

    def encode(
        self, texts: Sequence[str], prompt: str, max_seq_length: int, effort: Effort
    ) -> SparseVectors:
        """Tokenize, run the model and pool; raises InputError."""
        sequences = tokenize(self.tokenizer, texts, max_seq_length, prompt)
        vectors = self.encode_sequences(sequences, effort)
        if self.restriction is None:
            return vectors
        return _restrict(vectors, sequences, self.restriction)

    def encode_sequences(self, sequences: Sequence[IdArray], effort: Effort) -> SparseVectors:
        """Run token ids through model, head and pooling."""
        if self.kernel_path != "reference":
            from minisplade.models.packed import encode

            pooling = self.way.strategy, self.way.activation
            threads, memory = effort.num_threads, effort.max_memory_bytes
            return encode(self.packed, sequences, *pooling, threads, memory)
        return _in_batches(sequences, effort.batch_size, self._pooled)

    def _pooled(self, sequences: Sequence[IdArray]) -> SparseVectors:
        """Encode one batch: the reference path."""
        batch = pad(sequences, self.model.config.pad_token_id)
        transformed = self.model.transformed(batch.input_ids, batch.attention_mask)  # (B, T, D)
        dense = pool_tiles(
            transformed,
            self.model.params["head.decoder.weight"],
            self.model.params["head.decoder.bias"],
            batch.attention_mask,
            self.way.strategy,
            self.way.activation,
        )
        return SparseVectors.from_dense(dense)

    def chosen_logits(self, input_ids: IdArray, term_ids: IdArray) -> FloatArray:
        """Return the logits of some terms at every token, as pooling sees them.

        input_ids: int32 (T,), one text; term_ids: int32 (P,), increasing; returns float32 (T, P).
        """
        if self.kernel_path != "reference":
            from minisplade.models import packed

            return packed.chosen_logits(self.packed, input_ids, term_ids)
        return chosen_logits(
            self.model.transformed(input_ids[None], np.ones((1, input_ids.size), dtype=bool)),
            self.model.params["head.decoder.weight"],
            self.model.params["head.decoder.bias"],
            term_ids,
        )


class StaticRoute:
    """A fixed weight for each token that a text has: no model is run."""

    kernel_path: KernelPath = "reference"
    config = None
    longest = NO_LIMIT
    special_tokens = False

    def __init__(self, way: StaticWay, num_terms: int | None = None) -> None:
        """Load tokenizer and weights; raises CheckpointError."""
        self.way = way
        self.tokenizer = load_tokenizer(way.folder, num_terms or NO_LIMIT)
        self.token_weights = read_token_weights(way, self.tokenizer, num_terms)
        self.num_terms = self.token_weights.size
        expect_fit(self.tokenizer, self.num_terms, way.weights)
        self.max_seq_length = way.max_seq_length or NO_LIMIT

    def encode(
        self, texts: Sequence[str], prompt: str, max_seq_length: int, effort: Effort
    ) -> SparseVectors:
        """Look up the weight of each token, special ones aside; raises InputError."""
        found = tokenize(self.tokenizer, texts, max_seq_length, prompt, special_tokens=False)
        rows = []
        for sequence in found:
            term_ids = np.unique(sequence)
            rows.append((term_ids, self.token_weights[term_ids]))
        return _from_rows(rows, self.num_terms)

    def chosen_logits(self, input_ids: IdArray, term_ids: IdArray) -> FloatArray:
        """Return the weights of some terms at every token: 0, unless it is the term.

        input_ids: int32 (T,), one text; term_ids: int32 (P,); returns float32 (T, P).
        """
        return _at_tokens(input_ids, self.token_weights[input_ids], term_ids)


class TokenRoute:
    """A weight for each token from its hidden state, the largest where a token is repeated.

    Source: Chen et al. 2024, "BGE M3-Embedding", section 3.2; the authors' code leaves out special
    tokens.
    """

    special_tokens = True

    def __init__(self, way: TokenWay, kernel_path: KernelPath) -> None:
        """Load model and tokenizer; raises CheckpointError."""
        self.way = way
        self.model = load_token_weigher(way.folder, way.weights)
        self.config = config = self.model.config
        self.kernel_path = usable_path(config, kernel_path)
        self.tokenizer = load_tokenizer(way.folder, config.vocab_size)
        self.num_terms = config.vocab_size
        self.longest = config.max_positions
        self.max_seq_length = min(way.max_seq_length or self.longest, self.longest)
        names = read_optional(way.folder / "tokenizer_config.json")
        self.left_out = special_ids(self.tokenizer, names)

    @cached_property
    def body(self) -> Body:
        """The encoder laid out for the kernels."""
        from minisplade.models.body import pack_body

        return pack_body(self.model.params, self.model.config)

    def encode(
        self, texts: Sequence[str], prompt: str, max_seq_length: int, effort: Effort
    ) -> SparseVectors:
        """Tokenize, run the model and keep the largest weight of each token; raises InputError."""
        sequences = tokenize(self.tokenizer, texts, max_seq_length, prompt)
        if not sequences:
            return concatenate([], self.num_terms)
        if self.kernel_path == "reference":
            return _in_batches(sequences, effort.batch_size, self._weighed)
        from minisplade.models.body import encode_tokens

        threads, memory = effort.num_threads, effort.max_memory_bytes
        weights = encode_tokens(self.body, sequences, self.model.weights_of, threads, memory)
        return self._largest(sequences, weights)

    def _weighed(self, sequences: Sequence[IdArray]) -> SparseVectors:
        """Encode one batch: the reference path."""
        batch = pad(sequences, self.model.config.pad_token_id)
        weights = self.model.weights(batch.input_ids, batch.attention_mask)  # (B, T)
        return self._largest(sequences, [w[: s.size] for w, s in zip(weights, sequences)])

    def _largest(
        self, sequences: Sequence[IdArray], weights: Sequence[FloatArray]
    ) -> SparseVectors:
        rows = []
        for sequence, of_tokens in zip(sequences, weights):
            term_ids, place = np.unique(sequence, return_inverse=True)
            largest = np.zeros(term_ids.size, dtype=np.float32)
            np.maximum.at(largest, place, of_tokens)
            largest[np.isin(term_ids, self.left_out)] = 0
            rows.append((term_ids, largest))
        return _from_rows(rows, self.num_terms)

    def chosen_logits(self, input_ids: IdArray, term_ids: IdArray) -> FloatArray:
        """Return the weights of some terms at every token: 0, unless it is the term.

        input_ids: int32 (T,), one text; term_ids: int32 (P,); returns float32 (T, P).
        """
        if self.kernel_path == "reference":
            mask = np.ones((1, input_ids.size), dtype=bool)
            (weights,) = self.model.weights(input_ids[None], mask)
        else:
            from minisplade.models.body import encode_tokens

            weigh, memory = self.model.weights_of, NO_LIMIT
            (weights,) = encode_tokens(self.body, [input_ids], weigh, 1, memory)
        return _at_tokens(input_ids, weights, term_ids)


Route: TypeAlias = SpladeRoute | StaticRoute | TokenRoute
"""One way from texts to sparse vectors."""


def load_route(way: Way, kernel_path: KernelPath, num_terms: int | None = None) -> Route:
    """Load one way of encoding; raises CheckpointError.

    kernel_path: used where the model's architecture is compiled, which is not so for all.
    num_terms: what the size of vectors must be, None for what the way's own files say.
    """
    route: Route
    if isinstance(way, SpladeWay):
        route = SpladeRoute(way, kernel_path)
    elif isinstance(way, TokenWay):
        route = TokenRoute(way, kernel_path)
    else:
        route = StaticRoute(way, num_terms)
    if num_terms not in (None, route.num_terms):
        raise CheckpointError(
            f"{way.folder} makes vectors of {route.num_terms} terms, but those of the other route "
            f"have {num_terms}; queries and documents need one vocabulary"
        )
    return route


def read_token_weights(way: StaticWay, tokenizer: Tokenizer, num_terms: int | None) -> FloatArray:
    """Read the weight of each term, float32 (V,); terms that the file leaves out weigh nothing.

    num_terms: V; None takes it from the file or the tokenizer. Raises CheckpointError.
    """
    path = way.weights
    if path.suffix in (".safetensors", ".bin"):
        layer = open_file(path)
        if "weight" not in layer or layer.tensors["weight"].ndim != 1:
            raise CheckpointError(f"{path} has no weight for each token: no row named weight")
        return layer.weight("weight", (num_terms or layer.tensors["weight"].size,))
    table = read_json(path) if path.suffix == ".json" else _read_lines(path)
    weights = np.zeros(num_terms or largest_id(tokenizer) + 1, dtype=np.float32)
    for term, weight in table.items():
        term_id = tokenizer.token_to_id(term)
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise CheckpointError(f"{path} gives {term!r} the weight {weight!r}; expected a number")
        if not abs(weight) < 1e30:
            raise CheckpointError(f"{path} gives {term!r} the weight {weight!r}; far too large")
        if term_id is not None and term_id < weights.size:
            weights[term_id] = weight
    return weights


def _read_lines(path: Path) -> dict[str, float]:
    """Read lines of a token, a tab and its weight; raises CheckpointError."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        pairs = [line.rsplit("\t", 1) for line in lines if line.strip()]
        return {term: float(weight) for term, weight in pairs}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not lines of token, tab, weight: {error}") from error


def special_ids(tokenizer: Tokenizer, names: dict[str, object]) -> IdArray:
    """Return the ids of the tokens that are no part of any text."""
    found: set[int] = set()
    for name in ("cls_token", "sep_token", "eos_token", "pad_token", "unk_token"):
        token = names.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        usual = BYTE_PAIR_TOKENS.get(name), WORD_PIECE_TOKENS.get(name)
        ids = (tokenizer.token_to_id(str(text)) for text in ([content] if content else usual))
        found.update(term_id for term_id in ids if term_id is not None)
    return np.array(sorted(found), dtype=np.int32)


def _at_tokens(input_ids: IdArray, weights: FloatArray, term_ids: IdArray) -> FloatArray:
    """Spread one weight for each token, (T,), over the columns of some terms: (T, P)."""
    return np.where(input_ids[:, None] == term_ids, weights[:, None], np.float32(0))


def _from_rows(rows: Sequence[tuple[IdArray, FloatArray]], num_terms: int) -> SparseVectors:
    """Put rows of terms in order and their weights together, those above 0."""
    kept = [weights > 0 for _, weights in rows]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([np.count_nonzero(mask) for mask in kept], out=offsets[1:])
    nothing = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    term_ids = [nothing[0], *(row[0][mask] for row, mask in zip(rows, kept))]
    weights = [nothing[1], *(row[1][mask] for row, mask in zip(rows, kept))]
    return SparseVectors(offsets, np.concatenate(term_ids), np.concatenate(weights), num_terms)


def _restrict(
    vectors: SparseVectors, sequences: Sequence[IdArray], token_weights: FloatArray
) -> SparseVectors:
    """Keep of each vector the terms that its text has as tokens, times their own weights."""
    rows = []
    for vector, sequence in zip(vectors, sequences):
        weights = vector.weights * token_weights[vector.term_ids]
        rows.append((vector.term_ids, weights * np.isin(vector.term_ids, sequence)))
    return _from_rows(rows, vectors.num_terms)


def _in_batches(
    sequences: Sequence[IdArray], batch_size: int, run: Callable[[list[IdArray]], SparseVectors]
) -> SparseVectors:
    """Run batches of texts of like length; keep the order of the texts."""
    batches = batches_by_length([sequence.size for sequence in sequences], batch_size)
    vectors = [run([sequences[i] for i in batch]) for batch in batches]
    return concatenate(vectors)[np.argsort(np.concatenate(batches))]
