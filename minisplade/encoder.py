"""SparseEncoder: texts to sparse vectors with a SPLADE model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np
from tokenizers import Tokenizer

from minisplade import similarity as similarities
from minisplade.analysis import each_text
from minisplade.arrays import FloatArray, IdArray
from minisplade.errors import InputError
from minisplade.explain import Explanation, MatchExplanation, find_sources, match
from minisplade.hub import DEFAULT_MODEL, find_model
from minisplade.layout import Settings, Task, read_settings
from minisplade.models import MaskedLanguageModel
from minisplade.pooling import Activation, Strategy
from minisplade.routes import Effort, Route, SpladeRoute, load_route
from minisplade.runtime import KernelPath, choose_kernel_path, choose_num_threads
from minisplade.saving import write_folder
from minisplade.tokenization import Token, pad, read_tokens, term_ids_of, term_strings, tokenize
from minisplade.trace import Trace, run_traced
from minisplade.vectors import AnyVectors, SparseVector, SparseVectors, as_rows, concatenate

if TYPE_CHECKING:
    from tqdm import tqdm
    from typing_extensions import Unpack

logger = logging.getLogger("minisplade")

BLOCK_TEXTS = 1024
"""Texts that are tokenized, sorted by length and encoded together."""

TRACED_TERMS = 12
"""Terms that a trace follows, unless they are named."""


class ReadOptions(TypedDict, total=False):
    """What decides how one text is read: see SparseEncoder.encode."""

    prompt: str | None
    prompt_name: str | None
    max_active_dims: int | None
    max_seq_length: int | None
    task: Task | None


class EncodeOptions(ReadOptions, total=False):
    """What SparseEncoder.encode, encode_query and encode_document take beside their inputs."""

    batch_size: int
    show_progress_bar: bool | None


class SparseEncoder:
    """A SPLADE model with its tokenizer, used as sentence-transformers' class of that name is."""

    def __init__(
        self,
        name_or_path: str | os.PathLike[str] | None = None,
        *,
        query_name_or_path: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        max_active_dims: int | None = None,
        num_threads: int | None = None,
        max_memory_mb: float = 256,
        kernel_path: str | None = None,
    ) -> None:
        """Load a model.

        name_or_path: a folder, a Hub id, a known name such as "splade-small", or None for the
        default model, splade-tiny; see find_model for where it is looked for and the arguments up
        to token. query_name_or_path: another model for queries, over the same vocabulary; without
        it, queries are encoded as the model's own files say. The arguments from prompts to
        max_active_dims replace what those files say.
        num_threads: threads that texts are spread over; None is $MINISPLADE_NUM_THREADS, or one
        per CPU. max_memory_mb: what they may compute in, whatever the number and length of texts;
        weights, texts and results come on top. kernel_path: "reference", "tiles" or "screened";
        None is $MINISPLADE_PATH, or the fastest that runs here and knows the architecture. On one
        kernel path of the compiled two, the bytes of a vector depend on its text only, and both
        give the same bytes.
        Raises ModelNotFoundError, CheckpointError and InputError.
        """
        path = choose_kernel_path(kernel_path)
        self.num_threads = choose_num_threads(num_threads)
        if not max_memory_mb > 0:
            raise InputError(f"max_memory_mb is {max_memory_mb}; expected a number above 0")
        self.max_memory_mb = max_memory_mb
        find = partial(
            find_model,
            revision=revision,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
            token=token,
        )
        self.folder = find(name_or_path)
        self.name = DEFAULT_MODEL if name_or_path is None else os.fspath(name_or_path)
        settings = read_settings(self.folder)
        query_way = settings.query
        if query_name_or_path is not None:
            query_way = read_settings(find(query_name_or_path)).query
        self.document_route = load_route(settings.document, path)
        self.query_route = self.document_route
        if query_way is not settings.document:
            self.query_route = load_route(query_way, path, self.document_route.num_terms)
        self.default_task: Task = settings.default_task
        if kernel_path is not None and self.document_route.config and self.kernel_path != path:
            raise InputError(
                f"kernel path {path!r} does not know the architecture of {self.name}; leave "
                'kernel_path out, or use "reference"'
            )
        self.prompts = dict(settings.prompts if prompts is None else prompts)
        self.default_prompt_name = default_prompt_name or settings.default_prompt_name
        self.similarity_fn_name = similarity_fn_name or settings.similarity_fn_name
        self.max_active_dims = max_active_dims or settings.max_active_dims
        self._prompt(self.default_prompt_name)

    def __repr__(self) -> str:
        """Name the model, its size and its limits."""
        config = self.document_route.config
        size = f"{config.num_layers} layers of {config.hidden_size}, " if config else ""
        return (
            f"SparseEncoder({self.name!r}: {size}{self.get_embedding_dimension()} terms, "
            f"up to {self.max_seq_length} tokens)"
        )

    @property
    def model(self) -> MaskedLanguageModel:
        """The masked language model that encodes documents; raises InputError if there is none."""
        return self._splade.model

    @property
    def strategy(self) -> Strategy:
        """How the logits of a document's tokens are pooled; raises InputError without logits."""
        return self._splade.way.strategy

    @property
    def activation(self) -> Activation:
        """What logits go through before pooling; raises InputError where there are none."""
        return self._splade.way.activation

    @property
    def _splade(self) -> SpladeRoute:
        if not isinstance(self.document_route, SpladeRoute):
            raise InputError(f"{self.name} has no masked language model for documents")
        return self.document_route

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of documents."""
        return self.document_route.tokenizer

    @property
    def kernel_path(self) -> KernelPath:
        """The kernel path that documents are encoded on."""
        return self.document_route.kernel_path

    @property
    def max_seq_length(self) -> int:
        """The number of tokens after which a document is cut, special tokens included."""
        return self.document_route.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, length: int) -> None:
        for route in (self.document_route, self.query_route):
            route.max_seq_length = _checked_length(length, route)

    @cached_property
    def terms(self) -> list[str]:
        """The string of each dimension, V of them."""
        return term_strings(self.tokenizer, self.get_embedding_dimension())

    @property
    def query_prompt(self) -> str:
        """What encode_query puts before each text: the model's prompt "query", or its default."""
        return self._first_prompt("query")

    @property
    def document_prompt(self) -> str:
        """What encode_document puts first: "document", "passage", "corpus" or the default."""
        return self._first_prompt("document", "passage", "corpus")

    def get_embedding_dimension(self) -> int:
        """Return V, the size of the vocabulary and of every vector."""
        return self.document_route.num_terms

    @overload
    def encode(self, inputs: str, **options: Unpack[EncodeOptions]) -> SparseVector: ...
    @overload
    def encode(self, inputs: Iterable[str], **options: Unpack[EncodeOptions]) -> SparseVectors: ...
    def encode(
        self,
        inputs: str | Iterable[str],
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        max_active_dims: int | None = None,
        max_seq_length: int | None = None,
        task: Task | None = None,
    ) -> SparseVector | SparseVectors:
        """Encode one text, or many, whose order is kept.

        batch_size: texts that go through the model at once on the kernel path "reference"; the
        others fill max_memory_mb as they see fit. show_progress_bar: None shows it when
        the "minisplade" logger is at INFO or below. prompt: put before each text; prompt_name: one
        of the model's prompts. max_active_dims: keep only that many of the heaviest terms.
        max_seq_length: cut texts at so many tokens, in this call. task: "query" or "document",
        where the model encodes them differently; None is the model's default. Raises InputError.
        """
        texts = [inputs] if isinstance(inputs, str) else list(each_text(inputs))
        prefix = self._prompt(prompt_name or self.default_prompt_name) if prompt is None else prompt
        if show_progress_bar is None:
            show_progress_bar = logger.isEnabledFor(logging.INFO)
        blocks = self.encode_stream(
            texts,
            batch_size=batch_size,
            prompt=prefix,
            max_active_dims=max_active_dims,
            max_seq_length=max_seq_length,
            task=task or self.default_task,
        )
        if show_progress_bar:
            blocks = _with_progress(blocks, len(texts))
        vectors = concatenate(list(blocks), self.get_embedding_dimension())
        return vectors[0] if isinstance(inputs, str) else vectors

    @overload
    def encode_query(self, inputs: str, **options: Unpack[EncodeOptions]) -> SparseVector: ...
    @overload
    def encode_query(
        self, inputs: Iterable[str], **options: Unpack[EncodeOptions]
    ) -> SparseVectors: ...
    def encode_query(
        self, inputs: str | Iterable[str], **options: Unpack[EncodeOptions]
    ) -> SparseVector | SparseVectors:
        """Encode queries: as encode, with query_prompt unless another prompt is given."""
        options = {"task": "query", **_with_prompt(self.query_prompt, options)}
        return self.encode(inputs, **options)

    @overload
    def encode_document(self, inputs: str, **options: Unpack[EncodeOptions]) -> SparseVector: ...
    @overload
    def encode_document(
        self, inputs: Iterable[str], **options: Unpack[EncodeOptions]
    ) -> SparseVectors: ...
    def encode_document(
        self, inputs: str | Iterable[str], **options: Unpack[EncodeOptions]
    ) -> SparseVector | SparseVectors:
        """Encode documents: as encode, with document_prompt unless another prompt is given."""
        options = {"task": "document", **_with_prompt(self.document_prompt, options)}
        return self.encode(inputs, **options)

    def encode_stream(
        self,
        inputs: Iterable[str],
        *,
        batch_size: int = 32,
        prompt: str | None = None,
        max_active_dims: int | None = None,
        max_seq_length: int | None = None,
        task: Task = "document",
    ) -> Iterator[SparseVectors]:
        """Encode any number of documents in flat memory, yielding blocks of vectors in order.

        inputs: read BLOCK_TEXTS at a time; a block holds the vectors of so many texts, the last
        one of fewer. prompt: put before each text; None is that of the task. Other arguments as in
        encode. Raises InputError.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected 1 or more")
        route = self._route(task)
        length = _checked_length(max_seq_length or route.max_seq_length, route)
        keep = self.max_active_dims if max_active_dims is None else max_active_dims
        if prompt is None:
            prompt = self.query_prompt if task == "query" else self.document_prompt
        texts = each_text(inputs)
        while block := list(islice(texts, BLOCK_TEXTS)):
            effort = Effort(batch_size, self.num_threads, int(self.max_memory_mb * 1e6))
            vectors = route.encode(block, prompt, length, effort)
            yield vectors if keep is None else vectors.prune(keep)

    def explain(self, text: str, **options: Unpack[ReadOptions]) -> Explanation:
        """Tell for each term of a text's vector which token and characters it comes from.

        The vector is the one that encode returns for the same options, and the logit of each term
        that of the same kernel path, to the bit. Raises InputError.
        """
        vector = self.encode([text], **options)[0]
        tokens = self._tokens(text, **options)
        input_ids = np.array([token.term_id for token in tokens], dtype=np.int32)
        route = self._route(options.get("task") or self.default_task)
        logits = route.chosen_logits(input_ids, vector.term_ids)
        return find_sources(text, tokens, vector, logits, self.terms)

    def explain_match(self, query: str, document: str) -> MatchExplanation:
        """Tell which terms make the score of a document for a query, and where each comes from.

        Both are encoded as encode_query and encode_document do. The score is the dot product, as
        an index scores. Raises InputError.
        """
        return match(
            self.explain(query, prompt=self.query_prompt, task="query"),
            self.explain(document, prompt=self.document_prompt, task="document"),
        )

    def trace(
        self, text: str, *, terms: Sequence[str] | None = None, **options: Unpack[ReadOptions]
    ) -> Trace:
        """Run one text through the functions of the reference path, and keep what each gives.

        terms: those whose logits are followed; None is the twelve heaviest. Raises InputError, also
        for a term that the vocabulary does not have, and where no vector comes of logits alone.
        """
        route = self._route(options.get("task") or self.default_task)
        if not isinstance(route, SpladeRoute) or route.restriction is not None:
            raise InputError(
                f"{self.name} weighs such texts by a table or a layer of its own; a trace follows "
                "vectors that are pooled from the logits of a masked language model"
            )
        vector = self.encode([text], **options)[0]
        heaviest = [term for term, _ in self.decode(vector, TRACED_TERMS)]
        return run_traced(
            route.model,
            text,
            self._tokens(text, **options),
            vector,
            term_ids_of(self.terms, heaviest if terms is None else terms),
            self.terms,
            route.way.strategy,
            route.way.activation,
        )

    def _tokens(self, text: str, **options: Unpack[ReadOptions]) -> tuple[Token, ...]:
        """Read one text as encode does, with the characters of each token."""
        prompt, name = options.get("prompt"), options.get("prompt_name")
        prefix = self._prompt(name or self.default_prompt_name) if prompt is None else prompt
        route = self._route(options.get("task") or self.default_task)
        length = options.get("max_seq_length") or route.max_seq_length
        return read_tokens(route.tokenizer, text, length, prefix, route.special_tokens)

    def _route(self, task: Task) -> Route:
        """Return the way that texts of a task go; raises InputError for one that is unknown."""
        if task not in ("query", "document"):
            raise InputError(f"task is {task!r}; expected 'query' or 'document'")
        return self.query_route if task == "query" else self.document_route

    def similarity(self, a: AnyVectors, b: AnyVectors) -> FloatArray:
        """Compare every vector of a with every one of b by the model's similarity function."""
        return similarities.similarity(a, b, self.similarity_fn_name)

    def similarity_pairwise(self, a: AnyVectors, b: AnyVectors) -> FloatArray:
        """Compare the vectors of a with those of b one by one; returns float32 (B,)."""
        return similarities.similarity_pairwise(a, b, self.similarity_fn_name)

    @overload
    def decode(
        self, vectors: SparseVector, top_k: int | None = None
    ) -> list[tuple[str, float]]: ...
    @overload
    def decode(
        self, vectors: SparseVectors, top_k: int | None = None
    ) -> list[list[tuple[str, float]]]: ...
    def decode(self, vectors: AnyVectors, top_k: int | None = None) -> Any:
        """Return (term, weight) pairs, heaviest first, top_k of them or all, for each vector."""
        if isinstance(vectors, SparseVectors):
            return [self.decode(row, top_k) for row in vectors]
        heaviest = np.argsort(-vectors.weights, kind="stable")[:top_k]
        return [(self.terms[vectors.term_ids[i]], float(vectors.weights[i])) for i in heaviest]

    @staticmethod
    def sparsity(vectors: AnyVectors) -> dict[str, float]:
        """Return the mean number of active terms, and the share of the vocabulary that is not."""
        rows = as_rows(vectors)
        active = rows.weights.size / len(rows) if len(rows) else 0.0
        return {"active_dims": active, "sparsity_ratio": 1 - active / rows.num_terms}

    @staticmethod
    def intersection(a: SparseVector, b: SparseVector) -> SparseVector:
        """Multiply two vectors term by term, which leaves the terms that both have."""
        if a.num_terms != b.num_terms:
            raise InputError(f"vectors over {a.num_terms} and {b.num_terms} terms")
        term_ids, in_a, in_b = np.intersect1d(
            a.term_ids, b.term_ids, assume_unique=True, return_indices=True
        )
        return SparseVector(term_ids, a.weights[in_a] * b.weights[in_b], a.num_terms)

    def tokenize(self, texts: Sequence[str]) -> dict[str, IdArray]:
        """Return input_ids, token_type_ids and attention_mask, int32 (B, T) each, padded."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        sequences = tokenize(self.tokenizer, texts, self.max_seq_length)
        config = self.document_route.config
        batch = pad(sequences, config.pad_token_id if config else 0)
        return {
            "input_ids": batch.input_ids,
            "token_type_ids": np.zeros_like(batch.input_ids),
            "attention_mask": batch.attention_mask.astype(np.int32),
        }

    def save_pretrained(self, path: str | os.PathLike[str], *, float16: bool = False) -> None:
        """Write a folder that sentence-transformers, transformers and minisplade load.

        float16: round the weights to half the size.
        """
        settings = Settings(
            document=self.document_route.way,
            query=self.query_route.way,
            default_task=self.default_task,
            max_active_dims=self.max_active_dims,
            similarity_fn_name=self.similarity_fn_name,
            prompts=self.prompts,
            default_prompt_name=self.default_prompt_name,
        )
        write_folder(Path(path), settings, self.document_route, self.query_route, float16)

    def _first_prompt(self, *names: str) -> str:
        """Look up the first of some prompts that the model has, or else its default prompt."""
        return self._prompt(next((n for n in names if n in self.prompts), self.default_prompt_name))

    def _prompt(self, name: str | None) -> str:
        """Look up a prompt by name; no name is no prompt."""
        if name is None:
            return ""
        if name not in self.prompts:
            raise InputError(f"prompt {name!r} is unknown; this model has {sorted(self.prompts)}")
        return self.prompts[name]


def _checked_length(length: int, route: Route) -> int:
    """Return a number of tokens that a route can take; raises InputError."""
    # Two, because [CLS] and [SEP] are always there.
    if not 2 <= length <= route.longest:
        raise InputError(f"max_seq_length is {length}; this model can take 2 to {route.longest}")
    return int(length)


def _with_prompt(prompt: str, options: EncodeOptions) -> EncodeOptions:
    """Add a prompt to options, unless the caller chose one."""
    if options.get("prompt") is None and options.get("prompt_name") is None:
        options["prompt"] = prompt
    return options


def _with_progress(blocks: Iterator[SparseVectors], total: int) -> Iterator[SparseVectors]:
    """Show how many texts are done while blocks go by."""
    from tqdm import tqdm

    bar: tqdm[Any] = tqdm(total=total, unit=" texts", desc="Encoding")
    with bar:
        for block in blocks:
            bar.update(len(block))
            yield block
