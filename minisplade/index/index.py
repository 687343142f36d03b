"""Index: sparse vectors of documents under the user's keys, searched exactly."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import BoolArray, FloatArray, IdArray
from minisplade.errors import IndexFormatError, InputError
from minisplade.files import read_arrays, write_arrays
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.postings import Postings, build_postings
from minisplade.index.search import Found, SearchOptions, drop_light_terms, search, search_many
from minisplade.index.storage import FORMAT, FORMAT_VERSION, postings_from, stored
from minisplade.index.stream import build_from_stream
from minisplade.vectors import SparseVector, SparseVectors


class Encoder(Protocol):
    """What an index asks of the model that turns its texts and queries into vectors."""

    name: str

    @overload
    def encode_query(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_query(self, inputs: Iterable[str]) -> SparseVectors: ...

    def encode_stream(self, inputs: Iterable[str]) -> Iterator[SparseVectors]:
        """Yield the vectors of documents, in blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    """One document found."""

    key: str
    score: float
    doc_id: int
    text: str | None  # where the index keeps texts


@dataclass(frozen=True, slots=True, eq=False)
class Hits(Sequence[Hit]):
    """The documents found for one query, best first; equal scores in document order.

    What is promised for them: the score at each rank is at least alpha times (s - epsilon), s
    being the score of the best possible document there; 1 and 0 for an exact search.
    """

    doc_ids: IdArray  # int32 (k,) or fewer
    scores: FloatArray  # float32, as many
    index_keys: tuple[str, ...]  # (N,), those of all documents
    index_texts: tuple[str, ...] | None
    alpha: float = 1.0
    epsilon: float = 0.0

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the documents found."""
        return tuple(self.index_keys[i] for i in self.doc_ids)

    @property
    def texts(self) -> tuple[str, ...] | None:
        """Their texts, where the index keeps them."""
        texts = self.index_texts
        return None if texts is None else tuple(texts[i] for i in self.doc_ids)

    def __len__(self) -> int:
        """Count the documents found."""
        return self.doc_ids.size

    @overload
    def __getitem__(self, place: int) -> Hit: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Hit]: ...
    def __getitem__(self, place: int | slice) -> Hit | Sequence[Hit]:
        """Return the hit at a rank, 0 being the best, or several."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        doc_id = int(self.doc_ids[place])
        text = None if self.index_texts is None else self.index_texts[doc_id]
        return Hit(self.index_keys[doc_id], float(self.scores[place]), doc_id, text)


class Index:
    """An immutable inverted index over documents."""

    def __init__(
        self,
        postings: Postings,
        keys: Sequence[str],
        texts: Sequence[str] | None = None,
        encoder: Encoder | None = None,
        encoder_name: str | None = None,
    ) -> None:
        """Put together what from_vectors, from_texts and load prepare; use those."""
        self.postings = postings
        self.keys = tuple(keys)
        self.texts = None if texts is None else tuple(texts)
        self.encoder = encoder
        self.encoder_name = encoder.name if encoder else encoder_name

    @classmethod
    def from_vectors(
        cls,
        vectors: SparseVectors,
        keys: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        encoder: Encoder | None = None,
        *,
        compact: bool = False,
    ) -> Index:
        """Index vectors that are already there.

        keys: a distinct name for each row; without them rows are named "0", "1", ... texts: what
        hits should show. encoder: what queries given as text are encoded with. compact: search in
        two thirds of the memory, as exactly but slower. Raises InputError.
        """
        keys = [str(i) for i in range(len(vectors))] if keys is None else list(keys)
        _check_documents(keys, texts, len(vectors))
        return cls(build_postings(vectors, compact), keys, texts, encoder)

    @classmethod
    def from_stream(
        cls,
        blocks: Iterable[SparseVectors],
        keys: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        encoder: Encoder | None = None,
        *,
        compact: bool = False,
    ) -> Index:
        """Index vectors that come in blocks, without holding them all; else as from_vectors."""
        postings = build_from_stream(blocks, compact)
        keys = [str(i) for i in range(postings.num_docs)] if keys is None else list(keys)
        _check_documents(keys, texts, postings.num_docs)
        return cls(postings, keys, texts, encoder)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        encoder: Encoder,
        keys: Sequence[str] | None = None,
        keep_texts: bool = True,
        *,
        compact: bool = False,
    ) -> Index:
        """Encode documents and index them; keep_texts lets hits show them. Raises InputError."""
        texts = list(texts)
        if not texts:
            raise InputError("there are no texts to index")
        if keys is not None:
            _check_documents(keys, None, len(texts))  # before hours of encoding
        blocks = encoder.encode_stream(texts)
        kept = texts if keep_texts else None
        return cls.from_stream(blocks, keys, kept, encoder, compact=compact)

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: Encoder | None = None) -> Index:
        """Map an index that save wrote.

        encoder: needed for queries given as text; it must be the model that the index was made
        with. Raises IndexFormatError, or InputError for an encoder of another vocabulary size.
        """
        arrays, metadata = read_arrays(path, FORMAT, FORMAT_VERSION)
        try:
            postings = postings_from(arrays, metadata)
            keys = _split_strings(arrays["keys"], arrays["key_offsets"])
            texts = None
            if "texts" in arrays:
                texts = _split_strings(arrays["texts"], arrays["text_offsets"])
            _check_documents(keys, texts, postings.num_docs)
        except (KeyError, ValueError, OverflowError) as error:
            raise IndexFormatError(f"{path} is damaged: {error}") from error
        return cls(postings, keys, texts, encoder, metadata.get("encoder"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file; an existing one is replaced only when all is written."""
        arrays, metadata = stored(self.postings)
        arrays["keys"], arrays["key_offsets"] = _join_strings(self.keys)
        if self.texts is not None:
            arrays["texts"], arrays["text_offsets"] = _join_strings(self.texts)
        if self.encoder_name:
            metadata["encoder"] = self.encoder_name
        write_arrays(path, arrays, FORMAT, FORMAT_VERSION, metadata)

    def __len__(self) -> int:
        """Count the documents."""
        return self.postings.num_docs

    def __repr__(self) -> str:
        """Name the sizes."""
        return (
            f"Index({len(self)} documents, {self.postings.num_postings} postings over "
            f"{self.postings.num_terms} terms, encoder {self.encoder_name!r})"
        )

    @overload
    def search(
        self,
        query: str | SparseVector,
        k: int = 10,
        *,
        filter: Filter | BoolArray | None = None,
        num_threads: int = 1,
        alpha: float = 1.0,
        epsilon: float = 0.0,
    ) -> Hits: ...
    @overload
    def search(
        self,
        query: Sequence[str] | SparseVectors,
        k: int = 10,
        *,
        filter: Filter | BoolArray | None = None,
        num_threads: int = 1,
        alpha: float = 1.0,
        epsilon: float = 0.0,
    ) -> list[Hits]: ...
    def search(
        self,
        query: str | SparseVector | Sequence[str] | SparseVectors,
        k: int = 10,
        *,
        filter: Filter | BoolArray | None = None,
        num_threads: int = 1,
        alpha: float = 1.0,
        epsilon: float = 0.0,
    ) -> Hits | list[Hits]:
        """Find the k documents with the highest dot product: exactly, unless asked for less.

        One query, as text or vector, gives Hits; several give a list of them. Documents that share
        no term with the query are not hits. filter: from make_filter, or bool (N,), to search only
        some documents. num_threads: several queries are shared among threads, and so is one query
        of a large index. alpha below 1 lets the score at each rank be as low as alpha times the
        best possible one, and epsilon above 0 lets it be so much lower; both save time, and hits
        tell what they promise. Raises InputError.
        """
        chosen = EVERYTHING if filter is None else filter
        if not isinstance(chosen, Filter):
            chosen = self.make_filter(chosen)
        options = SearchOptions(k, chosen, num_threads, alpha, epsilon)
        options.check()
        if chosen is not EVERYTHING and chosen.allowed.size != len(self):
            raise InputError(
                f"filter is for {chosen.allowed.size} documents, index has {len(self)}"
            )
        vectors = self._query_vectors(query)
        if vectors.num_terms != self.postings.num_terms:
            raise InputError(
                f"query has {vectors.num_terms} terms, index has {self.postings.num_terms}; "
                "encode both with the same model"
            )
        if isinstance(vectors, SparseVectors):
            return self._search_all(vectors.check(), options)
        return self._search_one(vectors, options)

    def make_filter(self, documents: BoolArray | Iterable[str]) -> Filter:
        """Choose the documents that a search may return, once for many searches.

        documents: bool (N,), or the keys of those documents. Raises InputError.
        """
        if isinstance(documents, np.ndarray):
            return Filter.from_mask(documents, len(self))
        mask = np.zeros(len(self), dtype=np.bool_)
        places = {key: doc_id for doc_id, key in enumerate(self.keys)}
        for key in documents:
            if key not in places:
                raise InputError(f"filter names {key!r}, which is not in this index")
            mask[places[key]] = True
        return Filter.from_mask(mask, len(self))

    def matching_terms(self, query: SparseVector, doc_id: int) -> list[tuple[int, float]]:
        """Take one hit's score apart: (term id, query weight times impact), largest first."""
        if not 0 <= doc_id < len(self):
            raise InputError(f"doc_id is {doc_id}; this index has 0 to {len(self) - 1}")
        shares = query.weights * self.postings.impacts_in(doc_id, query)
        largest = np.argsort(-shares, kind="stable")[: np.count_nonzero(shares)]
        return [(int(query.term_ids[i]), float(shares[i])) for i in largest]

    def _query_vectors(self, query: Any) -> SparseVector | SparseVectors:
        """Encode what is text, and leave vectors as they are."""
        if isinstance(query, SparseVector | SparseVectors):
            return query
        if self.encoder is None:
            raise InputError(
                "a query given as text needs an encoder: Index.load(path, encoder=SparseEncoder"
                f"({self.encoder_name!r})), or pass a vector"
            )
        return self.encoder.encode_query(query)

    def _search_one(self, query: SparseVector, options: SearchOptions) -> Hits:
        lost = 0.0
        if options.epsilon:
            query, lost = drop_light_terms([self.postings], query, options.epsilon)
        return self._hits(search(self.postings, query, options), options.alpha, lost)

    def _search_all(self, queries: SparseVectors, options: SearchOptions) -> list[Hits]:
        lost = [0.0] * len(queries)
        if options.epsilon:
            shorter = [drop_light_terms([self.postings], query, options.epsilon) for query in queries]
            queries = SparseVectors.from_rows([query for query, _ in shorter], queries.num_terms)
            lost = [bound for _, bound in shorter]
        found = search_many(self.postings, queries, options)
        return [self._hits(one, options.alpha, bound) for one, bound in zip(found, lost)]

    def _hits(self, found: Found, alpha: float, epsilon: float) -> Hits:
        return Hits(*found, self.keys, self.texts, alpha, epsilon)


def _check_documents(keys: Sequence[str], texts: Sequence[str] | None, num_docs: int) -> None:
    """Raise InputError unless there is one distinct key, and one text if any, per document."""
    if len(keys) != num_docs:
        raise InputError(f"{len(keys)} keys for {num_docs} documents")
    if texts is not None and len(texts) != num_docs:
        raise InputError(f"{len(texts)} texts for {num_docs} documents")
    seen: set[str] = set()
    for place, key in enumerate(keys):
        if not isinstance(key, str):
            raise InputError(f"key {place} is {type(key).__name__}; expected str")
        if key in seen:
            raise InputError(f"key {key!r} stands for two documents; keys must differ")
        seen.add(key)


def _join_strings(strings: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Store strings as UTF-8 bytes and where each starts, int64 (N + 1,)."""
    encoded = [string.encode() for string in strings]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(string) for string in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def _split_strings(joined: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[str]:
    """Undo _join_strings."""
    content = joined.tobytes()
    places = offsets.tolist()
    return [content[start:end].decode() for start, end in zip(places, islice(places, 1, None))]
