"""Postings: for each term, which documents have it and how much it weighs there."""

from dataclasses import dataclass

import numpy as np

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.errors import InputError
from minisplade.vectors import SparseVector, SparseVectors


@dataclass(frozen=True, slots=True)
class Postings:
    """Postings of all terms; term t owns slots offsets[t]:offsets[t + 1]."""

    offsets: OffsetArray  # int64 (V + 1,)
    doc_ids: IdArray  # int32 (P,), increasing within a term
    impacts: FloatArray  # float32 (P,), positive
    num_docs: int  # N

    @property
    def num_terms(self) -> int:
        """The size of the vocabulary, V."""
        return self.offsets.size - 1

    def check(self) -> None:
        """Raise InputError unless kernels can walk these arrays without leaving them."""
        if self.offsets.size < 1 or self.offsets[0] != 0 or np.any(np.diff(self.offsets) < 0):
            raise InputError("offsets of postings must start at 0 and not decrease")
        if not self.offsets[-1] == self.doc_ids.size == self.impacts.size:
            raise InputError("offsets, document ids and impacts disagree about their length")
        if self.doc_ids.size and not 0 <= self.doc_ids.min() <= self.doc_ids.max() < self.num_docs:
            raise InputError(f"postings name documents outside 0 to {self.num_docs - 1}")

    def impacts_in(self, doc_id: int, query: SparseVector) -> FloatArray:
        """Return the impact of each term of the query in one document, 0 where it is absent."""
        impacts = np.zeros(len(query), dtype=np.float32)
        for place, term_id in enumerate(query.term_ids):
            start, end = self.offsets[term_id], self.offsets[term_id + 1]
            slot = start + np.searchsorted(self.doc_ids[start:end], doc_id)
            if slot < end and self.doc_ids[slot] == doc_id:
                impacts[place] = self.impacts[slot]
        return impacts


def build_postings(vectors: SparseVectors) -> Postings:
    """Turn documents with terms into terms with documents, which is a sparse transpose."""
    # A stable sort by term leaves documents in order within each term.
    by_term = np.argsort(vectors.term_ids, kind="stable")
    doc_ids = np.repeat(np.arange(len(vectors), dtype=np.int32), np.diff(vectors.offsets))
    offsets = np.zeros(vectors.num_terms + 1, dtype=np.int64)
    np.cumsum(np.bincount(vectors.term_ids, minlength=vectors.num_terms), out=offsets[1:])
    return Postings(offsets, doc_ids[by_term], vectors.weights[by_term], len(vectors))
