"""Explanations for the terminal: terms as bars, each with its source."""

from collections.abc import Iterator, Sequence

from minisplade.explain import ExplainedTerm, Explanation, MatchExplanation
from minisplade.terminal import BLUE, BOLD, DIM, ORANGE, bar, on_one_line, printable, styled

TERM_COLUMNS, BAR_COLUMNS = 16, 30


def explanation_lines(explanation: Explanation, top: int) -> Iterator[str]:
    """Draw the heaviest terms of a text, top of them."""
    terms = explanation.terms
    expansions = sum(term.is_expansion for term in terms)
    yield styled(on_one_line(explanation.text), BOLD)
    yield (
        f"{len(terms)} of {explanation.vector.num_terms:,} terms: "
        f"{styled(f'{len(terms) - expansions} tokens of the text', BLUE)}, "
        f"{styled(f'{expansions} expansions', ORANGE)} (+)"
    )
    if explanation.text[explanation.num_read :].strip():
        yield f"The text is cut off after character {explanation.num_read}."
    yield ""
    largest = max((term.weight for term in terms), default=1.0)
    for term in terms[:top]:
        yield _line(term, term.weight, largest, f"from {_source(explanation, term)}")
    yield from _more(terms, top)


def match_lines(found: MatchExplanation, top: int) -> Iterator[str]:
    """Draw the terms that make a score, top of them, and what the document lacks."""
    yield styled(on_one_line(found.query.text), BOLD)
    yield on_one_line(found.document.text[:400])
    yield f"{found.score:.4f} = the sum of {len(found.terms)} terms"
    yield ""
    largest = max((matched.share for matched in found.terms), default=1.0)
    for matched in found.terms[:top]:
        why = (
            f"{_source(found.query, matched.query)} {matched.query.weight:.2f} × "
            f"{_source(found.document, matched.document)} {matched.document.weight:.2f}"
        )
        yield _line(matched.query, matched.share, largest, why)
    yield from _more(found.terms, top)
    if found.missing:
        lacks = ", ".join(f"{printable(t.term)} {t.weight:.2f}" for t in found.missing[:top])
        yield styled(f"\nnot in the document: {lacks}", DIM)


def _line(term: ExplainedTerm, number: float, largest: float, why: str) -> str:
    drawn = bar(number / largest, BAR_COLUMNS).ljust(BAR_COLUMNS)
    sign = "+" if term.is_expansion else " "
    colour = ORANGE if term.is_expansion else BLUE
    name = printable(term.term).ljust(TERM_COLUMNS)
    return f"{number:7.3f}  {styled(drawn, colour)} {sign} {name} {styled(why, DIM)}"


def _source(explanation: Explanation, term: ExplainedTerm) -> str:
    """Name the source of a term, and its word where that is more."""
    source, word = explanation.source(term), explanation.word(term)
    return printable(source if source == word else f"{source} in {word}")


def _more(terms: Sequence[object], top: int) -> Iterator[str]:
    if len(terms) > top:
        yield f"{'':9}and {len(terms) - top} lighter ones; --top {len(terms)} shows all"
