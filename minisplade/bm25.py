"""BM25: the classic weights of words, as sparse vectors for the same index."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from minisplade.analysis import ANALYZERS, Analyzer, each_text
from minisplade.arrays import DoubleArray, IdArray
from minisplade.errors import IndexFormatError, InputError
from minisplade.files import read_arrays, write_arrays
from minisplade.vectors import SparseVector, SparseVectors, concatenate

FORMAT = "minisplade-bm25"
FORMAT_VERSION = 1

BLOCK_TEXTS = 4096
"""Documents that are weighed together."""


def lucene_idf(num_docs: int, df: DoubleArray) -> DoubleArray:
    """Return ln(1 + (N - df + 0.5) / (df + 0.5)); Lucene's BM25Similarity."""
    return np.log1p((num_docs - df + 0.5) / (df + 0.5))


def atire_idf(num_docs: int, df: DoubleArray) -> DoubleArray:
    """Return ln(N / df).

    Source: Trotman, Jia and Crane 2012, "Towards an Efficient and Effective Search Engine".
    """
    return np.log(num_docs / df)


def plus_idf(num_docs: int, df: DoubleArray) -> DoubleArray:
    """Return ln((N + 1) / df); Lv and Zhai 2011, "Lower-Bounding Term Frequency Normalization"."""
    return np.log((num_docs + 1) / df)


IDFS: dict[str, Callable[[int, DoubleArray], DoubleArray]] = {
    "lucene": lucene_idf,
    "atire": atire_idf,
    "bm25+": plus_idf,
}


class BM25:
    """Bag-of-words weights whose dot products are BM25 scores.

    The weight of a word that a document of length |d| has tf times, with K = k1 (1 - b + b |d| /
    average length), is, by method,

        lucene  ln(1 + (N - df + 0.5) / (df + 0.5))  tf / (tf + K)
        atire   ln(N / df)                           tf (k1 + 1) / (tf + K)
        bm25+   ln((N + 1) / df)                     (tf (k1 + 1) / (tf + K) + delta)

    and 0 for words that it has not; in a query a word weighs as often as it is there. Lengths are
    exact, where Lucene keeps eight bits of them. Sources: Kamphuis, de Vries, Boytsov and Lin
    2020, "Which BM25 Do You Mean?", for the first two; Lv and Zhai 2011 for the third, whose sum
    is over the words that query and document share.
    """

    def __init__(
        self,
        terms: Iterable[str],
        document_frequencies: IdArray,
        num_docs: int,
        average_length: float,
        *,
        method: str = "lucene",
        k1: float = 1.2,
        b: float = 0.75,
        delta: float = 1.0,
        analyzer: str | Analyzer = "english",
    ) -> None:
        """Take the statistics of a collection; fit counts them.

        terms: the V words; document_frequencies: int32 (V,), how many of num_docs documents have
        each; average_length: words of a document. Other arguments as in fit.
        """
        if method not in IDFS:
            raise InputError(f"method is {method!r}; known: {', '.join(IDFS)}")
        for name, number, most in (("k1", k1, np.inf), ("b", b, 1), ("delta", delta, np.inf)):
            if not 0 <= number <= most or number == np.inf:
                raise InputError(f"{name} is {number}; expected 0 to {most}, and finite")
        self.terms = list(terms)
        self.document_frequencies = document_frequencies
        self.num_docs = num_docs
        self.average_length = average_length
        self.method, self.k1, self.b, self.delta = method, k1, b, delta
        self.analyzer = _analyzer(analyzer)
        self.analyzer_name = analyzer if isinstance(analyzer, str) else ""
        self.name = f"bm25:{method}"
        self.idf = IDFS[method](num_docs, document_frequencies.astype(np.float64))
        self._ids = {term: i for i, term in enumerate(self.terms)}

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        method: str = "lucene",
        k1: float = 1.2,
        b: float = 0.75,
        delta: float = 1.0,
        analyzer: str | Analyzer = "english",
    ) -> BM25:
        """Count the words of a collection, whose statistics all weights then use.

        method: "lucene", "atire" or "bm25+"; k1: how soon repetition stops to matter; b: how much
        the length of a document does; delta: what bm25+ adds. analyzer: "english" (needs
        PyStemmer), "simple", or a function from a text to its words. Raises InputError.
        """
        analyze = _analyzer(analyzer)
        frequencies: Counter[str] = Counter()
        num_docs = num_words = 0
        for text in each_text(texts):
            words = analyze(text)
            frequencies.update(set(words))
            num_docs += 1
            num_words += len(words)
        if not num_docs:
            raise InputError("there are no texts to fit; expected one or more")
        terms = sorted(frequencies)
        counts = np.array([frequencies[term] for term in terms], dtype=np.int32)
        average = num_words / num_docs
        chosen: dict[str, Any] = {"k1": k1, "b": b, "delta": delta, "analyzer": analyzer}
        return cls(terms, counts, num_docs, average, method=method, **chosen)

    def __repr__(self) -> str:
        """Name the variant and the sizes."""
        return (
            f"BM25({self.method!r}, k1={self.k1}, b={self.b}: {len(self.terms)} terms of "
            f"{self.num_docs} documents)"
        )

    def get_embedding_dimension(self) -> int:
        """Return V, the number of words and of dimensions of every vector, at least 1."""
        return max(1, len(self.terms))

    @overload
    def encode_query(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_query(self, inputs: Iterable[str]) -> SparseVectors: ...
    def encode_query(self, inputs: str | Iterable[str]) -> SparseVector | SparseVectors:
        """Count the known words of queries; raises InputError for what is no text."""
        if isinstance(inputs, str):
            return self._counted([inputs])[0][0]
        return self._counted(list(each_text(inputs)))[0]

    @overload
    def encode_document(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_document(self, inputs: Iterable[str]) -> SparseVectors: ...
    def encode_document(self, inputs: str | Iterable[str]) -> SparseVector | SparseVectors:
        """Weigh the known words of documents; raises InputError for what is no text."""
        if isinstance(inputs, str):
            return self._weighed([inputs])[0]
        return concatenate(list(self.encode_stream(inputs)), self.get_embedding_dimension())

    def encode_stream(self, inputs: Iterable[str]) -> Iterator[SparseVectors]:
        """Weigh any number of documents in flat memory, yielding blocks of vectors in order."""
        texts = each_text(inputs)
        while block := list(islice(texts, BLOCK_TEXTS)):
            yield self._weighed(block)

    def _counted(self, texts: list[str]) -> tuple[SparseVectors, DoubleArray]:
        """Return how often each text has each known word, and the lengths, float64 (B,)."""
        rows, lengths = [], np.zeros(len(texts))
        for place, text in enumerate(texts):
            words = self.analyzer(text)
            lengths[place] = len(words)
            rows.append([self._ids[word] for word in words if word in self._ids])
        num_terms = self.get_embedding_dimension()
        counts = [len(row) for row in rows]
        keys = np.repeat(np.arange(len(texts)) * num_terms, counts)
        keys += np.fromiter((i for row in rows for i in row), np.int64, keys.size)
        keys, repeats = np.unique(keys, return_counts=True)
        offsets = np.searchsorted(keys, np.arange(len(texts) + 1) * num_terms).astype(np.int64)
        term_ids = (keys % num_terms).astype(np.int32)
        return SparseVectors(offsets, term_ids, repeats.astype(np.float32), num_terms), lengths

    def _weighed(self, texts: list[str]) -> SparseVectors:
        """Return the vectors of documents, without the words that weigh nothing."""
        counted, lengths = self._counted(texts)
        rows = np.repeat(np.arange(len(texts)), np.diff(counted.offsets))
        tf = counted.weights.astype(np.float64)
        # A collection without words has no documents to weigh either.
        relative = lengths / self.average_length if self.average_length else lengths
        saturated = tf / (tf + self.k1 * (1 - self.b + self.b * relative[rows]))
        if self.method != "lucene":
            saturated *= self.k1 + 1
        if self.method == "bm25+":
            saturated += self.delta
        weights = (self.idf[counted.term_ids] * saturated).astype(np.float32)
        kept = weights > 0
        offsets = np.concatenate([[0], np.cumsum(kept)])[counted.offsets].astype(np.int64)
        return SparseVectors(
            offsets, counted.term_ids[kept], weights[kept], self.get_embedding_dimension()
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one file with the statistics; raises InputError for an analyzer without a name."""
        if not self.analyzer_name:
            raise InputError(
                "an analyzer that is a function cannot be saved; use one by name, such as 'english'"
            )
        arrays: dict[str, NDArray[Any]] = {
            "terms": np.frombuffer("\n".join(self.terms).encode(), dtype=np.uint8),
            "document_frequencies": self.document_frequencies,
        }
        numbers = {name: repr(getattr(self, name)) for name in NUMBERS}
        names = {"method": self.method, "analyzer": self.analyzer_name}
        write_arrays(path, arrays, FORMAT, FORMAT_VERSION, {**numbers, **names})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> BM25:
        """Read a file that save wrote; raises IndexFormatError."""
        arrays, metadata = read_arrays(path, FORMAT, FORMAT_VERSION)
        try:
            joined = arrays["terms"].tobytes().decode()
            terms = joined.split("\n") if joined else []
            frequencies = arrays["document_frequencies"]
            num_docs = int(metadata["num_docs"])
            if frequencies.dtype != np.int32 or frequencies.shape != (len(terms),):
                raise InputError(f"{len(terms)} terms, frequencies of shape {frequencies.shape}")
            if frequencies.size and not 1 <= frequencies.min() <= frequencies.max() <= num_docs:
                raise InputError(f"document frequencies beyond 1 to {num_docs}")
            return cls(
                terms,
                frequencies,
                num_docs,
                float(metadata["average_length"]),
                method=metadata["method"],
                k1=float(metadata["k1"]),
                b=float(metadata["b"]),
                delta=float(metadata["delta"]),
                analyzer=metadata["analyzer"],
            )
        except (KeyError, ValueError) as error:
            raise IndexFormatError(f"{path} is damaged: {error}") from error


NUMBERS = ("num_docs", "average_length", "k1", "b", "delta")


def _analyzer(chosen: str | Analyzer) -> Analyzer:
    if not isinstance(chosen, str):
        return chosen
    if chosen not in ANALYZERS:
        raise InputError(f"analyzer is {chosen!r}; known: {', '.join(ANALYZERS)}, or a function")
    return ANALYZERS[chosen]
