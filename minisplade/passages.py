"""Long documents: overlapping windows, merged into one vector or searched as passages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, overload

import numpy as np
from tokenizers import Tokenizer

from minisplade.encoder import SparseEncoder
from minisplade.errors import InputError
from minisplade.index import Index
from minisplade.vectors import SparseVector, SparseVectors, concatenate

BLOCK_DOCUMENTS = 64
"""Documents whose windows are encoded together."""

Span = tuple[int, int]
"""Where a passage starts and ends in its document, in characters."""


class WindowedEncoder:
    """A SparseEncoder that reads documents to their end, through overlapping windows.

    A document's weight for a term is the largest that any window gives it, as a token's is within
    a window: the SPLADE maximum over the whole document.
    """

    def __init__(
        self, encoder: SparseEncoder, *, max_seq_length: int | None = None, overlap: int = 32
    ) -> None:
        """Choose the tokens of a window, special ones included, and how many the next repeats.

        max_seq_length: None is the encoder's. Raises InputError.
        """
        self.encoder = encoder
        self.windows = Windows(encoder, max_seq_length, overlap)
        self.name = encoder.name

    @property
    def terms(self) -> list[str]:
        """The string of each dimension."""
        return self.encoder.terms

    def get_embedding_dimension(self) -> int:
        """Return V, the size of the vocabulary."""
        return self.encoder.get_embedding_dimension()

    @overload
    def encode_query(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_query(self, inputs: Iterable[str]) -> SparseVectors: ...
    def encode_query(self, inputs: str | Iterable[str]) -> SparseVector | SparseVectors:
        """Encode queries as the encoder does, in one window."""
        return self.encoder.encode_query(inputs)

    @overload
    def encode_document(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_document(self, inputs: Iterable[str]) -> SparseVectors: ...
    def encode_document(self, inputs: str | Iterable[str]) -> SparseVector | SparseVectors:
        """Encode whole documents."""
        if isinstance(inputs, str):
            return self.encode_document([inputs])[0]
        return concatenate(list(self.encode_stream(inputs)), self.get_embedding_dimension())

    def encode_stream(self, inputs: Iterable[str]) -> Iterator[SparseVectors]:
        """Encode any number of whole documents, yielding blocks of vectors in order."""
        texts = iter(inputs)
        while block := list(islice(texts, BLOCK_DOCUMENTS)):
            spans = self.windows.of(block)
            pieces = (piece_of(t, span) for t, own in zip(block, spans) for span in own)
            stream = self.encoder.encode_stream(pieces, max_seq_length=self.windows.length)
            yield merge_by_max(concatenate(list(stream)), [len(own) for own in spans])


class Windows:
    """Cuts texts where windows of a tokenizer's tokens start and end."""

    def __init__(self, encoder: SparseEncoder, max_seq_length: int | None, overlap: int) -> None:
        """Take the limits of WindowedEncoder; raises InputError for those that leave no step."""
        # A copy, because encoding sets a limit to the encoder's own.
        self.tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.length = max_seq_length or encoder.max_seq_length
        prompt = self.tokenizer.encode(encoder.document_prompt)
        self.room = self.length - len(prompt.ids)
        self.overlap = overlap
        if not 0 <= overlap < self.room:
            raise InputError(
                f"overlap is {overlap}; expected 0 to {self.room - 1}, less than the "
                f"{self.room} tokens of a text in a window of {self.length}"
            )

    def of(self, texts: Sequence[str]) -> list[list[Span]]:
        """Return the spans of each text's windows, one or more, of whole words where they fit."""
        try:
            encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            raise InputError(f"a text is no Unicode str: {error}") from None
        return [
            cut_windows(encoding.offsets, encoding.word_ids, self.room, self.overlap, len(text))
            for text, encoding in zip(texts, encodings)
        ]


def piece_of(text: str, span: Span) -> str:
    """Return what to encode for a span: its text, and a space before it if there is one.

    Byte-level tokenizers count that space to the word.
    """
    start, end = span
    return text[start - 1 : end] if text[max(0, start - 1) : start] == " " else text[start:end]


def cut_windows(
    offsets: Sequence[Span],
    word_ids: Sequence[int | None],
    room: int,
    overlap: int,
    length: int,
) -> list[Span]:
    """Cut a text into windows of at most room tokens, each repeating about overlap of them.

    offsets, word_ids: of each token; length: characters of the text. The first window starts with
    the text and the last one ends with it. A window ends and starts between words, unless one word
    fills it, so that its tokens are those that the words have in the whole text.
    """
    count = len(offsets)
    begins = {i for i in range(count) if i == 0 or word_ids[i] != word_ids[i - 1]} | {count}
    spans: list[Span] = []
    start = end = 0
    while count - start > room:
        reached = max(start, end)  # a window without new words would be for nothing
        last = start + room
        end = next((i for i in range(last, reached, -1) if i in begins), last)
        spans.append((offsets[start][0] if start else 0, offsets[end - 1][1]))
        start = next((i for i in range(max(start + 1, end - overlap), end) if i in begins), end)
    return [*spans, (offsets[start][0] if start else 0, length)]


def merge_by_max(vectors: SparseVectors, counts: Sequence[int]) -> SparseVectors:
    """Merge runs of rows: each term gets its largest weight in the run.

    counts: the rows of each run, one or more. Returns one row a run.
    """
    runs = np.repeat(np.arange(len(counts)), counts)
    rows = np.repeat(runs, np.diff(vectors.offsets))
    cells = rows * vectors.num_terms + vectors.term_ids
    order = np.argsort(cells, kind="stable")
    cells, starts = np.unique(cells[order], return_index=True)
    weights = vectors.weights[order]
    return SparseVectors(
        np.searchsorted(cells, np.arange(len(counts) + 1) * vectors.num_terms).astype(np.int64),
        (cells % vectors.num_terms).astype(np.int32),
        np.maximum.reduceat(weights, starts) if starts.size else weights,
        vectors.num_terms,
    )


@dataclass(frozen=True, slots=True)
class PassageHit:
    """A document found, by its best passage."""

    key: str
    score: float
    span: Span  # of the passage in the document, in characters
    text: str | None  # of the passage, where the index keeps texts


class PassageIndex:
    """An index over the windows of documents, which finds documents by their best one."""

    def __init__(self, index: Index) -> None:
        """Take an index that from_texts made, perhaps saved and loaded since; raises InputError.

        Each of its keys is that of a document, "#" and the span of the passage, such as "a#0:400".
        """
        self.index = index
        parted = [key.rpartition("#") for key in index.keys]
        try:
            spans = [tuple(map(int, span.split(":"))) for _, _, span in parted]
            self.spans: list[Span] = [(start, end) for start, end in spans]
        except ValueError:
            raise InputError("the keys of this index are not those of passages") from None
        self.owners = [key for key, _, _ in parted]
        self.num_docs = len(set(self.owners))

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        encoder: SparseEncoder,
        keys: Sequence[str] | None = None,
        keep_texts: bool = True,
        *,
        max_seq_length: int | None = None,
        overlap: int = 32,
    ) -> PassageIndex:
        """Cut documents into windows and index each; arguments as in WindowedEncoder and Index."""
        texts = list(texts)
        keys = [str(i) for i in range(len(texts))] if keys is None else list(keys)
        if len(keys) != len(texts):
            raise InputError(f"{len(keys)} keys for {len(texts)} documents")
        windows = Windows(encoder, max_seq_length, overlap)
        pieces, passages, names = [], [], []
        for key, text, spans in zip(keys, texts, windows.of(texts)):
            pieces += [piece_of(text, span) for span in spans]
            passages += [text[start:end] for start, end in spans]
            names += [f"{key}#{start}:{end}" for start, end in spans]
        if not passages:
            raise InputError("there are no texts to index")
        blocks = encoder.encode_stream(pieces, max_seq_length=windows.length)
        kept = passages if keep_texts else None
        return cls(Index.from_stream(blocks, names, kept, encoder))

    def __len__(self) -> int:
        """Count the documents."""
        return self.num_docs

    @overload
    def search(self, query: str | SparseVector, k: int = 10) -> list[PassageHit]: ...
    @overload
    def search(
        self, query: Sequence[str] | SparseVectors, k: int = 10
    ) -> list[list[PassageHit]]: ...
    def search(self, query: Any, k: int = 10) -> Any:
        """Find the k documents with the best passages: exactly, equal ones by document.

        One query gives a list of hits; several give a list of lists. Raises InputError.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k is {k!r}; expected a whole number, 1 or more")
        if not isinstance(query, str | SparseVector):
            return [self.search(one, k) for one in query]
        if isinstance(query, str) and self.index.encoder is not None:
            query = self.index.encoder.encode_query(query)
        passages = 4 * int(k)
        while True:
            # Passages come best first, so the first one of a document is its best.
            hits = self.index.search(query, min(passages, len(self.index)))
            best: dict[str, PassageHit] = {}
            for hit in hits:
                owner = self.owners[hit.doc_id]
                found = PassageHit(owner, hit.score, self.spans[hit.doc_id], hit.text)
                best.setdefault(owner, found)
            if len(best) >= k or len(hits) < passages:
                return list(best.values())[:k]
            passages *= 4
