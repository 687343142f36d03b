"""Why a text has its terms, and why a document has its score: each weight with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minisplade.arrays import FloatArray
from minisplade.figures import Colour, bars
from minisplade.tokenization import Token
from minisplade.vectors import SparseVector

__all__ = [
    "ExplainedTerm",
    "Explanation",
    "MatchExplanation",
    "MatchedTerm",
    "match",
    "find_sources",
]


@dataclass(frozen=True, slots=True)
class ExplainedTerm:
    """One active term, and the token that it comes from."""

    term: str
    term_id: int
    weight: float
    logit: float  # at that token; the weight is log(1 + logit), unless the model has it otherwise
    position: int  # of that token in Explanation.tokens
    is_expansion: bool  # whether no token of the input is this term

    @property
    def colour(self) -> Colour:
        """The colour in which pages and pictures show it."""
        return "new" if self.is_expansion else "own"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The vector of one text, each term with the token whose logit won the maximum.

    Where a model sums over tokens, it is the token that adds most.
    """

    text: str
    tokens: tuple[Token, ...]
    terms: tuple[ExplainedTerm, ...]  # heaviest first
    vector: SparseVector

    @property
    def num_read(self) -> int:
        """The characters up to the last token; what comes after was cut off, or is blank."""
        return max((token.span[1] for token in self.tokens if token.span), default=0)

    def source(self, term: ExplainedTerm) -> str:
        """Return the characters that a term comes from, or the token's name if there are none."""
        token = self.tokens[term.position]
        return self.text[slice(*token.span)] if token.span else token.string

    def word(self, term: ExplainedTerm) -> str:
        """Return the whole word that a term comes from, or the token's name if there is none."""
        token = self.tokens[term.position]
        return self.text[slice(*token.word)] if token.word else token.string

    def to_svg(self, top: int = 20) -> str:
        """Draw the heaviest terms, top of them, as bars."""
        rows = [(t.term, t.weight, f"{t.weight:.2f}", t.colour) for t in self.terms[:top]]
        return bars("Terms: tokens of the text in blue, expansions in orange", rows)

    def to_html(self) -> str:
        """Return a page of HTML that needs no other file: the text, its terms, and their ties."""
        from minisplade.explain.page import explanation_page

        return explanation_page(self)


@dataclass(frozen=True, slots=True)
class MatchedTerm:
    """One term that query and document share, and the part of the score that it makes."""

    term: str
    term_id: int
    share: float  # the product of both weights, in float64
    query: ExplainedTerm
    document: ExplainedTerm


@dataclass(frozen=True, slots=True)
class MatchExplanation:
    """The score of a document for a query, the dot product of their vectors, term by term."""

    query: Explanation
    document: Explanation
    terms: tuple[MatchedTerm, ...]  # largest share first
    score: float  # the exact sum of the shares, rounded once to float64

    @property
    def missing(self) -> tuple[ExplainedTerm, ...]:
        """The terms of the query that the document lacks, heaviest first."""
        found = {matched.term_id for matched in self.terms}
        return tuple(term for term in self.query.terms if term.term_id not in found)

    def to_html(self) -> str:
        """Return a page of HTML that needs no other file: both texts, and what ties them."""
        from minisplade.explain.page import match_page

        return match_page(self)


def find_sources(
    text: str,
    tokens: tuple[Token, ...],
    vector: SparseVector,
    logits: FloatArray,
    terms: Sequence[str],
) -> Explanation:
    """Find the token that each term of a vector comes from.

    logits: float32 (T, P), those of the vector's terms at each token; terms: the strings of all V.
    Of equal logits, the first token's counts.
    """
    positions = logits.argmax(axis=0) if tokens else np.zeros(0, dtype=np.int64)
    in_input = {token.term_id for token in tokens}
    explained = [
        ExplainedTerm(
            term=terms[term_id],
            term_id=term_id,
            weight=float(vector.weights[place]),
            logit=float(logits[positions[place], place]),
            position=int(positions[place]),
            is_expansion=term_id not in in_input,
        )
        for place, term_id in enumerate(vector.term_ids.tolist())
    ]
    explained.sort(key=lambda term: -term.weight)
    return Explanation(text, tokens, tuple(explained), vector)


def match(query: Explanation, document: Explanation) -> MatchExplanation:
    """Multiply the weights of common terms, and add them up."""
    in_document = {term.term_id: term for term in document.terms}
    matched = [
        # The product of two float32 numbers is exact in float64.
        MatchedTerm(term.term, term.term_id, term.weight * other.weight, term, other)
        for term in query.terms
        if (other := in_document.get(term.term_id))
    ]
    matched.sort(key=lambda term: -term.share)
    score = math.fsum(term.share for term in matched)
    return MatchExplanation(query, document, tuple(matched), score)
