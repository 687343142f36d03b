"""Whole words: an exact field for identifiers, and for words that a vocabulary cuts to pieces."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import overload

import numpy as np
from tokenizers import Tokenizer

from minisplade.errors import InputError
from minisplade.vectors import SparseVector, SparseVectors, concatenate

COMPOUND = re.compile(r"\w+(?:[-./:@#&+'\u2019]+\w+)*(?:\+\+|#)?")
"""A word, or several held together by signs: COVID-19, numpy.linalg, a/b, me@example.org, C++."""

PART = re.compile(r"\w+")

BLOCK_TEXTS = 1024


class WholeWords:
    """An encoder of one dimension per hash of a word, for the words that a tokenizer cuts.

    A subword model knows such a word only by its pieces, which other words share. Here it weighs 1
    in every text that has it, so that a match of the whole word counts. Nothing is fitted: any
    text may come later. Two words may share a hash, which is as likely as num_terms is small.
    """

    name = "words"

    def __init__(self, tokenizer: Tokenizer, num_terms: int = 1 << 18) -> None:
        """Take the tokenizer of the model beside it, such as SparseEncoder().tokenizer."""
        if num_terms < 1:
            raise InputError(f"num_terms is {num_terms}; expected 1 or more")
        self.tokenizer = tokenizer
        self.num_terms = num_terms

    @cached_property
    def terms(self) -> list[str]:
        """A name for each dimension; the words themselves cannot be told from their hashes."""
        return [f"#{i}" for i in range(self.num_terms)]

    def get_embedding_dimension(self) -> int:
        """Return the number of dimensions."""
        return self.num_terms

    @overload
    def encode_query(self, inputs: str) -> SparseVector: ...
    @overload
    def encode_query(self, inputs: Iterable[str]) -> SparseVectors: ...
    def encode_query(self, inputs: str | Iterable[str]) -> SparseVector | SparseVectors:
        """Mark the words of queries; the same as for documents."""
        if isinstance(inputs, str):
            return self._marked([inputs])[0]
        return concatenate(list(self.encode_stream(inputs)), self.num_terms)

    encode_document = encode_query

    def encode_stream(self, inputs: Iterable[str]) -> Iterator[SparseVectors]:
        """Mark the words of any number of texts, yielding blocks of vectors in order."""
        texts = iter(inputs)
        while block := list(islice(texts, BLOCK_TEXTS)):
            yield self._marked(block)

    def _marked(self, texts: list[str]) -> SparseVectors:
        words = [words_of(text) for text in texts]
        distinct = list(set().union(*words))
        # The space lets tokenizers that mark the beginnings of words see one.
        encodings = self.tokenizer.encode_batch_fast(
            [f" {word}" for word in distinct], add_special_tokens=False
        )
        cut = {word for word, encoding in zip(distinct, encodings) if len(encoding.ids) > 1}
        ids = [sorted({self.term_id(word) for word in own & cut}) for own in words]
        offsets = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in ids], out=offsets[1:])
        term_ids = np.array([i for row in ids for i in row], dtype=np.int32)
        return SparseVectors(
            offsets, term_ids, np.ones(term_ids.size, dtype=np.float32), self.num_terms
        )

    def term_id(self, word: str) -> int:
        """Return the dimension of a word: CRC-32 of its UTF-8 bytes, modulo num_terms."""
        return zlib.crc32(word.encode()) % self.num_terms


def words_of(text: str) -> set[str]:
    """Return the distinct words of a text, compounds both whole and in parts.

    Words are compared in Unicode's form NFKC and without case.
    """
    if not isinstance(text, str):
        raise InputError(f"a text is {type(text).__name__}; expected str")
    compounds = set(COMPOUND.findall(unicodedata.normalize("NFKC", text).casefold()))
    return compounds | {part for compound in compounds for part in PART.findall(compound)}
