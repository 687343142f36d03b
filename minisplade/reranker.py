"""CrossEncoder: scores for pairs of texts, read together, to put the best candidates in order."""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, get_args

import numpy as np

from minisplade.arrays import FloatArray, IdArray
from minisplade.errors import CheckpointError, InputError
from minisplade.functional import softmax
from minisplade.hub import find_model
from minisplade.layout import read_length, read_optional
from minisplade.models import load_classifier
from minisplade.routes import usable_path
from minisplade.runtime import choose_kernel_path, choose_num_threads
from minisplade.saving import write_classifier
from minisplade.tokenization import TokenPair, batches_by_length, pad, tokenize_pairs
from minisplade.vocabularies import load_tokenizer

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from minisplade.models.body import Body

Pair = tuple[str, str]
Activation = Literal["identity", "sigmoid"]

BLOCK_PAIRS = 1024
"""Pairs that are tokenized, sorted by length and scored together."""


class Ranked(TypedDict):
    """One document of CrossEncoder.rank."""

    corpus_id: int  # its place among the documents
    score: float
    text: "NotRequired[str]"


class CrossEncoder:
    """A model that reads a query and a document together, as sentence-transformers' class does.

    BERT, DistilBERT, RoBERTa, XLM-RoBERTa and CamemBERT with a head for sequence classification.
    """

    def __init__(
        self,
        name_or_path: str | os.PathLike[str],
        *,
        max_length: int | None = None,
        revision: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        num_threads: int | None = None,
        max_memory_mb: float = 256,
        kernel_path: str | None = None,
    ) -> None:
        """Load a model.

        name_or_path: a folder or a Hub id. max_length: tokens after which a pair is cut, from the
        end of the longer text; None is what the model's files say. Other arguments are those of
        SparseEncoder. Raises ModelNotFoundError, CheckpointError and InputError.
        """
        path = choose_kernel_path(kernel_path)
        self.num_threads = choose_num_threads(num_threads)
        if not max_memory_mb > 0:
            raise InputError(f"max_memory_mb is {max_memory_mb}; expected a number above 0")
        self.max_memory_mb = max_memory_mb
        self.folder = find_model(
            name_or_path,
            revision=revision,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
            token=token,
        )
        self.name = os.fspath(name_or_path)
        self.model = load_classifier(self.folder)
        config = self.model.config
        self.kernel_path = usable_path(config, path)
        self.tokenizer = load_tokenizer(self.folder, config.vocab_size)
        longest = config.max_positions
        self.max_length = max_length or min(read_length(self.folder) or longest, longest)
        # Three special tokens at least, and then something of each text.
        if not 5 <= self.max_length <= longest:
            raise InputError(f"max_length is {self.max_length}; this model can take 5 to {longest}")
        self._num_types = config.num_token_types if _knows_types(self.folder) else 1
        self.activation = _default_activation(self.model.raw_config, self.model.num_classes)

    def __repr__(self) -> str:
        """Name the model, its size and its limits."""
        config = self.model.config
        return (
            f"CrossEncoder({self.name!r}: {config.num_layers} layers of {config.hidden_size}, "
            f"pairs up to {self.max_length} tokens)"
        )

    @property
    def num_labels(self) -> int:
        """How many scores each pair gets."""
        return self.model.num_classes

    def predict(
        self,
        inputs: Pair | Iterable[Pair],
        *,
        batch_size: int = 32,
        activation: Activation | None = None,
        apply_softmax: bool = False,
    ) -> FloatArray:
        """Score one pair of texts, or many, whose order is kept.

        inputs: (query, document) pairs. batch_size: pairs that go through the model at once on the
        kernel path "reference". activation: what scores go through at the end; None is what the
        model's files say, or "sigmoid" for a single score and "identity" for more. apply_softmax:
        turn the scores of a pair into shares of 1. Returns float32 (B,), or (B, C) where a pair
        gets C scores; without the B for one pair. Raises InputError.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected 1 or more")
        single = isinstance(inputs, tuple | list) and _is_pair(inputs)
        pairs = iter([inputs] if single else inputs)
        blocks = []
        while block := list(islice(pairs, BLOCK_PAIRS)):
            blocks.append(self._logits(cast(list[Pair], block), batch_size))
        logits = np.concatenate(blocks) if blocks else np.zeros((0, self.num_labels), np.float32)
        scores = _activated(logits, activation or self.activation)
        if apply_softmax:
            scores = softmax(scores)
        if self.num_labels == 1:
            scores = scores[:, 0]
        return cast(FloatArray, scores[0]) if single else scores

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
    ) -> list[Ranked]:
        """Put documents in order, the best first and equal ones as they came.

        top_k: how many to return, None for all. return_documents: add their texts. Raises
        InputError, also for a model that gives a pair more than one score.
        """
        if self.num_labels != 1:
            raise InputError(f"{self.name} gives {self.num_labels} scores a pair; use predict")
        scores = self.predict([(query, text) for text in documents], batch_size=batch_size)
        ranked = []
        for place in np.argsort(-scores, kind="stable")[:top_k].tolist():
            entry: Ranked = {"corpus_id": place, "score": float(scores[place])}
            if return_documents:
                entry["text"] = documents[place]
            ranked.append(entry)
        return ranked

    def save_pretrained(self, path: str | os.PathLike[str], *, float16: bool = False) -> None:
        """Write a folder that sentence-transformers and minisplade load.

        float16: round the weights to half the size.
        """
        parts = self.folder, self.model, self.tokenizer, self.max_length
        write_classifier(Path(path), *parts, float16)

    @cached_property
    def _body(self) -> "Body":
        from minisplade.models.body import pack_body

        return pack_body(self.model.params, self.model.config)

    def _logits(self, pairs: Sequence[Pair], batch_size: int) -> FloatArray:
        """Tokenize and score: float32 (B, C)."""
        for number, pair in enumerate(pairs):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError(f"input {number} is {type(pair).__name__}; expected two texts")
        tokens = tokenize_pairs(self.tokenizer, pairs, self.max_length)
        if self.kernel_path == "reference":
            batches = batches_by_length([pair.input_ids.size for pair in tokens], batch_size)
            logits = [self._reference([tokens[i] for i in batch]) for batch in batches]
            return np.concatenate(logits)[np.argsort(np.concatenate(batches))]
        from minisplade.models.body import encode_firsts

        ids, types = [pair.input_ids for pair in tokens], [self._types(pair) for pair in tokens]
        memory = int(self.max_memory_mb * 1e6)
        first = encode_firsts(self._body, ids, types, self.num_threads, memory)
        return self.model.logits(first)

    def _reference(self, tokens: Sequence[TokenPair]) -> FloatArray:
        """Score one batch: the reference path."""
        batch = pad([pair.input_ids for pair in tokens], self.model.config.pad_token_id)
        types = pad([self._types(pair) for pair in tokens], 0).input_ids
        states = self.model.hidden_states(batch.input_ids, batch.attention_mask, types)
        return self.model.logits(states[:, 0])

    def _types(self, pair: TokenPair) -> IdArray:
        """Return the types of tokens, all the first where the model knows no second."""
        return np.minimum(pair.token_type_ids, max(self._num_types - 1, 0))


def _knows_types(folder: Path) -> bool:
    """Tell whether transformers gives a model the types of tokens, by its tokenizer's class."""
    config = read_optional(folder / "tokenizer_config.json")
    names = config.get("model_input_names")
    if isinstance(names, list):
        return "token_type_ids" in names
    return config.get("tokenizer_class") != "TokenizersBackend"


def _default_activation(raw: Mapping[str, Any], num_classes: int) -> Activation:
    """Read what scores go through, by the class of torch that config.json names."""
    own = raw.get("sentence_transformers")
    name = own.get("activation_fn") if isinstance(own, dict) else None
    name = name or raw.get("sbert_ce_default_activation_function")
    if name is None:
        return "sigmoid" if num_classes == 1 else "identity"
    kind = str(name).rpartition(".")[2].lower()
    if kind not in get_args(Activation):
        raise CheckpointError(
            f"config.json has the activation {name!r}; supported are Sigmoid and Identity"
        )
    return cast(Activation, kind)


def _activated(logits: FloatArray, activation: Activation) -> FloatArray:
    """Put logits through what the caller or the model asks for."""
    if activation == "identity":
        return logits
    if activation != "sigmoid":
        raise InputError(f"activation is {activation!r}; expected one of {get_args(Activation)}")
    # exp never overflows this way: of a logit below 0 it is the smaller of two forms.
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1, small) / (1 + small)


def _is_pair(inputs: Sequence[Any]) -> bool:
    return len(inputs) == 2 and all(isinstance(text, str) for text in inputs)
