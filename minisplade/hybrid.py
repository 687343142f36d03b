"""Hybrid search: learned and lexical fields side by side in one index, fused in one call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypedDict, overload

import numpy as np

from minisplade.errors import InputError
from minisplade.fusion import RRF_K, Reranker, check_fusion, fuse
from minisplade.fusion import rerank as judge
from minisplade.index import Hit, Index
from minisplade.vectors import SparseVector, SparseVectors, as_rows, concatenate

if TYPE_CHECKING:
    from typing_extensions import Unpack

BLOCK_TEXTS = 1024
"""Texts that all encoders take before their vectors are joined."""

DEPTH = 100
"""How many documents of each field reciprocal-rank fusion looks at."""


class HybridOptions(TypedDict, total=False):
    """What HybridSearch.search takes beside query and k."""

    fusion: str
    weights: Mapping[str, float] | None
    normalize: bool
    depth: int
    rrf_k: float
    filter: Any
    num_threads: int
    rerank: Reranker | None
    rerank_depth: int


class HybridEncoder:
    """Several encoders as one: the dimensions of the second follow those of the first, and so on.

    Each is a field of one vector, and one index holds them all. The dot product is the sum of
    those of the fields.
    """

    def __init__(self, encoders: Mapping[str, Any]) -> None:
        """Take encoders by field name, such as {"splade": SparseEncoder(), "bm25": bm25}."""
        if not encoders:
            raise InputError("no encoders; expected one or more, by field name")
        self.encoders = dict(encoders)
        self.name = " + ".join(encoder.name for encoder in self.encoders.values())
        sizes = [encoder.get_embedding_dimension() for encoder in self.encoders.values()]
        ends = np.cumsum(sizes).tolist()
        self.num_terms: int = ends[-1]
        self.fields = {
            field: range(end - size, end) for field, size, end in zip(self.encoders, sizes, ends)
        }

    @cached_property
    def terms(self) -> list[str]:
        """The string of each dimension, those of all fields in a row."""
        return [term for encoder in self.encoders.values() for term in encoder.terms]

    def get_embedding_dimension(self) -> int:
        """Return the number of dimensions of all fields."""
        return self.num_terms

    @overload
    def encode_query(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_query(self, inputs: Iterable[str]) -> SparseVectors: ...
    def encode_query(self, inputs: str | Iterable[str]) -> SparseVector | SparseVectors:
        """Encode queries in every field."""
        if isinstance(inputs, str):
            return self.encode_query([inputs])[0]
        texts = list(inputs)
        return join_fields([encoder.encode_query(texts) for encoder in self.encoders.values()])

    def encode_document(self, inputs: Iterable[str]) -> SparseVectors:
        """Encode documents in every field."""
        return concatenate(list(self.encode_stream(inputs)), self.num_terms)

    def encode_stream(self, inputs: Iterable[str]) -> Iterator[SparseVectors]:
        """Encode any number of documents in every field, yielding blocks of vectors in order."""
        texts = iter(inputs)
        while block := list(islice(texts, BLOCK_TEXTS)):
            yield join_fields(
                [concatenate(list(e.encode_stream(block))) for e in self.encoders.values()]
            )

    def weighted(self, queries: SparseVectors, weights: Any) -> SparseVectors:
        """Multiply each field of each query by its own weight; fields of weight 0 are left out.

        weights: float (Q, number of fields).
        """
        starts = [own.start for own in self.fields.values()]
        own_field = np.searchsorted(starts, queries.term_ids, side="right") - 1
        rows = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
        scaled = (queries.weights * np.asarray(weights)[rows, own_field]).astype(np.float32)
        kept = scaled > 0
        offsets = np.concatenate([[0], np.cumsum(kept)])[queries.offsets].astype(np.int64)
        return SparseVectors(offsets, queries.term_ids[kept], scaled[kept], queries.num_terms)


def join_fields(batches: Sequence[SparseVectors]) -> SparseVectors:
    """Put the rows of batches side by side; row i of the result has the terms of all rows i."""
    counts = np.stack([np.diff(batch.offsets) for batch in batches], axis=1)  # (B, fields)
    ends = np.cumsum(counts).reshape(counts.shape)
    term_ids = np.empty(int(counts.sum()), dtype=np.int32)
    weights = np.empty(term_ids.size, dtype=np.float32)
    first_term = 0
    for field, batch in enumerate(batches):
        own = counts[:, field]
        shifts = ends[:, field] - own - batch.offsets[:-1]
        slots = np.repeat(shifts, own) + np.arange(batch.weights.size)
        term_ids[slots] = batch.term_ids + first_term
        weights[slots] = batch.weights
        first_term += batch.num_terms
    offsets = np.concatenate([[0], ends[:, -1]]).astype(np.int64)
    return SparseVectors(offsets, term_ids, weights, first_term)


class HybridSearch:
    """Search in an index of several fields, by any mixture of them.

    To keep it, save the index and what encoders were fitted, such as BM25, and put it together
    again from what Index.load and BM25.load return.
    """

    def __init__(self, index: Index, encoder: HybridEncoder) -> None:
        """Take an index that was made with this encoder; from_texts makes both."""
        self.index = index
        self.encoder = encoder

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        encoders: Mapping[str, Any],
        keys: Sequence[str] | None = None,
        keep_texts: bool = True,
    ) -> HybridSearch:
        """Encode and index documents in every field; raises InputError."""
        encoder = HybridEncoder(encoders)
        return cls(Index.from_texts(texts, encoder, keys, keep_texts), encoder)

    @overload
    def search(
        self, query: str | SparseVector, k: int = 10, **options: Unpack[HybridOptions]
    ) -> Sequence[Hit]: ...
    @overload
    def search(
        self, query: Sequence[str] | SparseVectors, k: int = 10, **options: Unpack[HybridOptions]
    ) -> list[Sequence[Hit]]: ...
    def search(
        self,
        query: str | SparseVector | Sequence[str] | SparseVectors,
        k: int = 10,
        *,
        fusion: str = "linear",
        weights: Mapping[str, float] | None = None,
        normalize: bool = True,
        depth: int = DEPTH,
        rrf_k: float = RRF_K,
        filter: Any = None,
        num_threads: int = 1,
        rerank: Reranker | None = None,
        rerank_depth: int = 100,
    ) -> Sequence[Hit] | list[Sequence[Hit]]:
        """Find the k best documents for one query, or for several a list of such.

        fusion: "linear" is exact over all documents: the weighted sum of the fields' scores, each
        divided by the best one of the query in that field unless normalize is False; "rrf" adds up
        reciprocal ranks within the depth best of each field; see fuse for both. weights: by field,
        1 where not named; 0 leaves a field out. rerank: judges the rerank_depth best again by
        their texts. A query may be the vector of encoder.encode_query. Other arguments as in
        Index.search. Raises InputError.
        """
        one = isinstance(query, str | SparseVector)
        vectors, texts = self._queries(query)
        if rerank is not None and texts is None:
            raise InputError("re-ranking needs queries given as text")
        mixture = self._mixture(weights)
        check_fusion(fusion, mixture, len(mixture), rrf_k)
        wanted = max(k, rerank_depth) if rerank is not None else k
        options: dict[str, Any] = {"filter": filter, "num_threads": num_threads}
        found: list[Sequence[Hit]]
        if fusion == "linear":
            scaled = self._scaled(vectors, mixture, normalize, options)
            found = list(self.index.search(scaled, wanted, **options))
        else:
            rankings = [
                self.index.search(self._only(vectors, field), max(depth, wanted), **options)
                for field in range(len(mixture))
            ]
            found = [
                fuse(own, wanted, weights=mixture, rrf_k=rrf_k)
                for own in zip(*rankings, strict=True)
            ]
        if rerank is not None and texts is not None:
            found = [judge(q, hits, rerank, k) for q, hits in zip(texts, found, strict=True)]
        return found[0] if one else found

    def _queries(self, query: Any) -> tuple[SparseVectors, list[str] | None]:
        """Return queries as vectors of all fields, and as texts where they are that."""
        if isinstance(query, SparseVector | SparseVectors):
            vectors = as_rows(query).check()
            if vectors.num_terms != self.encoder.num_terms:
                raise InputError(
                    f"query has {vectors.num_terms} terms, the fields {self.encoder.num_terms}"
                )
            return vectors, None
        texts = [query] if isinstance(query, str) else list(query)
        return self.encoder.encode_query(texts), texts

    def _mixture(self, weights: Mapping[str, float] | None) -> list[float]:
        """Return the weight of each field in their order."""
        chosen = dict(weights or {})
        unknown = [name for name in chosen if name not in self.encoder.fields]
        if unknown:
            raise InputError(f"no field {unknown[0]!r}; there are {list(self.encoder.fields)}")
        return [chosen.get(field, 1.0) for field in self.encoder.fields]

    def _only(self, queries: SparseVectors, field: int) -> SparseVectors:
        """Return the queries without other fields."""
        weights = np.zeros(len(self.encoder.fields))
        weights[field] = 1.0
        return self.encoder.weighted(
            queries, np.broadcast_to(weights, (len(queries), weights.size))
        )

    def _scaled(
        self, queries: SparseVectors, mixture: list[float], normalize: bool, options: Any
    ) -> SparseVectors:
        """Weigh the fields, so that one dot product is their linear fusion."""
        weights = np.tile(mixture, (len(queries), 1))
        if normalize and len(mixture) > 1:
            for field in np.flatnonzero(mixture).tolist():
                found = self.index.search(self._only(queries, field), 1, **options)
                best = [float(hits.scores[0]) if hits else 1.0 for hits in found]
                weights[:, field] /= best
        return self.encoder.weighted(queries, weights)
