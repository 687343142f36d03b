"""Reading an index: what is in it, and what a query finds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from minisplade.arrays import BoolArray
from minisplade.errors import InputError
from minisplade.index import exchange
from minisplade.index.documents import Document, document_of
from minisplade.index.encoders import Encoder
from minisplade.index.filters import Condition
from minisplade.index.hits import Hits
from minisplade.index.postings import Postings
from minisplade.index.querying import Selection, find_hits, select
from minisplade.index.search import SearchOptions
from minisplade.index.snapshot import Snapshot
from minisplade.vectors import SparseVector, SparseVectors

AnyFilter = Selection | BoolArray | Condition | None


@dataclass(frozen=True, slots=True)
class Stats:
    """The sizes of an index."""

    num_docs: int
    num_deleted: int  # documents that take room until their segment is merged
    num_segments: int
    num_terms: int | None  # None before the first documents
    num_postings: int
    size_bytes: int  # of all files; 0 for an index in memory
    generation: int  # how many times the folder has changed
    encoder: str | None


class Reader:
    """One snapshot of documents, and all that can be asked of it."""

    def __init__(
        self,
        snapshot: Snapshot,
        encoder: Encoder | None = None,
        encoder_name: str | None = None,
        path: str | None = None,
    ) -> None:
        """Put together what the class methods of Index prepare; use those."""
        self.snapshot = snapshot
        self.encoder = encoder
        self.encoder_name = encoder.name if encoder else encoder_name
        self.path = path  # of the folder, None in memory

    def __len__(self) -> int:
        """Count the documents."""
        return self.snapshot.num_docs

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a document with this key."""
        return isinstance(key, str) and bool(self.snapshot.find([key]))

    def __repr__(self) -> str:
        """Name the sizes."""
        stats = self.stats()
        return (
            f"Index({stats.num_docs} documents, {stats.num_postings} postings over "
            f"{stats.num_terms} terms, encoder {self.encoder_name!r})"
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all documents, in order."""
        return tuple(key for key, _, _ in self.snapshot.live_rows())

    @property
    def texts(self) -> tuple[str | None, ...] | None:
        """The texts of all documents, in order; None where the index keeps none."""
        texts = tuple(text for _, text, _ in self.snapshot.live_rows())
        return None if all(text is None for text in texts) else texts

    def get(self, key: str) -> Document | None:
        """Return the document with a key, or None where there is none."""
        snapshot = self.snapshot  # which another thread may replace
        found = snapshot.find([key])
        return document_of(snapshot.rows([found[key]])[0]) if found else None

    def stats(self) -> Stats:
        """Return the sizes of this generation."""
        snapshot, manifest = self.snapshot, self.snapshot.manifest
        if manifest is None:
            postings = [segment.contents.postings for segment in snapshot.segments]
            num_terms: int | None = postings[0].num_terms
            num_postings, size_bytes = sum(own.num_postings for own in postings), 0
        else:
            num_terms = manifest.num_terms
            num_postings = sum(entry.num_postings for entry in manifest.segments)
            size_bytes = len(manifest.to_bytes()) + sum(f.size_bytes for f in manifest.files)
        return Stats(
            num_docs=snapshot.num_docs,
            num_deleted=int(snapshot.starts[-1]) - snapshot.num_docs,
            num_segments=len(snapshot.segments),
            num_terms=num_terms,
            num_postings=num_postings,
            size_bytes=size_bytes,
            generation=manifest.generation if manifest else 0,
            encoder=self.encoder_name,
        )

    @property
    def postings(self) -> Postings:
        """The postings of all documents, where they are in one segment; raises InputError."""
        return exchange.one_postings(self.snapshot)

    # Searching

    @overload
    def search(
        self,
        query: str | SparseVector,
        k: int = 10,
        *,
        filter: AnyFilter = None,
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
        filter: AnyFilter = None,
        num_threads: int = 1,
        alpha: float = 1.0,
        epsilon: float = 0.0,
    ) -> list[Hits]: ...
    def search(
        self,
        query: str | SparseVector | Sequence[str] | SparseVectors,
        k: int = 10,
        *,
        filter: AnyFilter = None,
        num_threads: int = 1,
        alpha: float = 1.0,
        epsilon: float = 0.0,
    ) -> Hits | list[Hits]:
        """Find the k documents with the highest dot product: exactly, unless asked for less.

        One query, as text or vector, gives Hits; several give a list of them. Documents that share
        no term with the query are not hits. filter: from make_filter, or what it takes, to search
        only some documents. num_threads: several queries are shared among threads, and so is one
        query of a large index. alpha below 1 lets the score at each rank be as low as alpha times
        the best possible one, and epsilon above 0 lets it be so much lower; both save time, and
        hits tell what they promise. Raises InputError.
        """
        options = SearchOptions(k, num_threads=num_threads, alpha=alpha, epsilon=epsilon)
        options.check()
        return find_hits(self.snapshot, self._query_vectors(query), options, filter)

    def make_filter(self, documents: BoolArray | Condition | Iterable[str]) -> Selection:
        """Choose the documents that a search may return, once for many searches.

        documents: a condition on metadata, such as {"lang": ["en", "fr"], "year": {">=": 1990}};
        keys; or bool (N,), by doc_id. It holds until the index changes. Raises InputError.
        """
        return select(self.snapshot, documents)

    def matching_terms(self, query: SparseVector, doc_id: int) -> list[tuple[int, float]]:
        """Take one hit's score apart: (term id, query weight times impact), largest first."""
        snapshot = self.snapshot
        if not 0 <= doc_id < snapshot.starts[-1]:
            raise InputError(f"doc_id is {doc_id}; this index has 0 to {snapshot.starts[-1] - 1}")
        segment, place = snapshot.locate(doc_id)
        shares = query.weights * segment.contents.postings.impacts_in(place, query)
        largest = np.argsort(-shares, kind="stable")[: np.count_nonzero(shares)]
        return [(int(query.term_ids[i]), float(shares[i])) for i in largest]

    def _query_vectors(self, query: Any) -> SparseVector | SparseVectors:
        """Encode what is text, and leave vectors as they are."""
        if isinstance(query, SparseVector | SparseVectors):
            return query
        return self._needed_encoder().encode_query(query)

    def _needed_encoder(self) -> Encoder:
        if self.encoder is None:
            how = "load" if self.path is None else "open"
            raise InputError(
                f"text needs an encoder: Index.{how}(path, encoder=SparseEncoder"
                f"({self.encoder_name!r})), or pass vectors"
            )
        return self.encoder

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file for load, without metadata; it is replaced only when all is written."""
        exchange.write_file(path, self.snapshot, self.encoder_name)

    def export_jsonl(self, path: str | os.PathLike[str]) -> int:
        """Write each document as a line of JSON with its vector; returns how many there are."""
        return exchange.write_json_lines(path, self.snapshot)
