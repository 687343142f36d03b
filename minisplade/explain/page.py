"""Explanations as pages of HTML: texts with their words highlighted, and terms as bars."""

from collections.abc import Sequence
from html import escape, unescape

from minisplade.explain import ExplainedTerm, Explanation, MatchedTerm, MatchExplanation
from minisplade.pages import beside, element, page

SHOWN_AT_ONCE = 40
"""Terms that are seen without opening the rest."""
SHOWN_UNREAD = 500
"""Characters that are shown of what was cut off."""
HINT = "Point at a word, tap it, or reach it with the Tab key: its terms stand out below."


def explanation_page(explanation: Explanation) -> str:
    """Return a page that ties each word of a text to the terms that come from it."""
    terms = explanation.terms
    largest = max((term.weight for term in terms), default=1.0)
    rows = [
        _row(
            term,
            [f"d{term.position}"],
            term.weight / largest,
            term.weight,
            f"from {_quoted(explanation, term)}",
        )
        for term in terms
    ]
    expansions = sum(term.is_expansion for term in terms)
    lead = (
        f"{len(terms)} of {explanation.vector.num_terms:,} terms are active: "
        f'<span class="own key">{len(terms) - expansions} tokens of the text</span> and '
        f'<span class="new key">{expansions} expansions</span>, which the model adds. '
        "Each is tied to the token where its logit is largest. "
        "The stronger a word's colour, the more weight comes from it."
    )
    body = _body("Why this text has these terms", lead, [_text(explanation, "d")], rows)
    return page("Why this text has these terms", body, beside(__file__, "page.js"))


def match_page(found: MatchExplanation) -> str:
    """Return a page that ties the words of a query to those of a document, with what each adds."""
    largest = max((matched.share for matched in found.terms), default=1.0)
    rows = [
        _row(
            matched.query,
            [f"q{matched.query.position}", f"d{matched.document.position}"],
            matched.share / largest,
            matched.share,
            f"{_quoted(found.query, matched.query)} {matched.query.weight:.2f} × "
            f"{_quoted(found.document, matched.document)} {matched.document.weight:.2f}",
        )
        for matched in found.terms
    ]
    lead = (
        f"The score is {found.score:.4f}: the sum of {len(rows)} products, one for each term that "
        "both have, its weight in the query times its weight in the document. Colours: "
        '<span class="own key">a token of the query</span>, '
        '<span class="new key">an expansion of it</span>.'
    )
    texts = [
        f"<h2>Query</h2>\n{_text(found.query, 'q', found.terms)}",
        f"<h2>Document</h2>\n{_text(found.document, 'd', found.terms)}",
    ]
    body = _body(f"Why this document scores {found.score:.2f}", lead, texts, rows)
    if found.missing:
        lacks = ", ".join(f"{escape(t.term)} {t.weight:.2f}" for t in found.missing)
        body += f"\n<h2>What the document lacks</h2>\n<p>{lacks}</p>"
    return page("Why this document has this score", body, beside(__file__, "page.js"))


def _body(title: str, lead: str, texts: Sequence[str], rows: Sequence[str]) -> str:
    more = ""
    if len(rows) > SHOWN_AT_ONCE:
        rest = "\n".join(rows[SHOWN_AT_ONCE:])
        more = (
            f"\n<details><summary>{len(rows) - SHOWN_AT_ONCE} lighter terms</summary>\n"
            f'<ol class="terms">\n{rest}\n</ol></details>'
        )
    return "\n".join(
        [
            f"<h1>{title}</h1>\n<p>{lead}</p>",
            *texts,
            f'<p class="caption" id="caption" aria-live="polite">{HINT}</p>',
            '<h2>Terms</h2>\n<ol class="terms">',
            *rows[:SHOWN_AT_ONCE],
            f"</ol>{more}",
        ]
    )


def _row(term: ExplainedTerm, places: list[str], share: float, number: float, why: str) -> str:
    """Write one term as a bar; share: its length from 0 to 1; why: HTML."""
    cells = [
        element("span", escape(term.term), class_="term"),
        element("span", "", class_="bar", style=f"width:{max(share, 0.005):.1%}"),
        element("span", f"{number:.3f}", class_="number"),
        element("span", why, class_="from quiet"),
    ]
    says = f"{term.term} {number:.3f}: {_plain(why)}"
    attributes = {"class_": term.colour, "data_at": " ".join(places), "data_says": says}
    return element("li", "".join(cells), **attributes)


def _text(explanation: Explanation, side: str, matched: Sequence[MatchedTerm] | None = None) -> str:
    """Write a text with its tokens coloured by what comes from them.

    side: what the places of this text begin with; matched: where given, only these terms count,
    by their share in the score.
    """
    made = _made(explanation, side, matched)
    hottest = max((sum(weight for _, weight in terms) for terms in made.values()), default=1.0)
    text, parts, at = explanation.text, [], 0
    for positions, start, end in _segments(explanation):
        parts.append(escape(text[at:start]))
        at = end
        names = " ".join(explanation.tokens[position].string for position in positions)
        label, kind = (text[start:end], "token") if start < end else (names, "token mark")
        terms = [pair for position in positions for pair in made.get(position, ())]
        places = " ".join(f"{side}{position}" for position in positions)
        parts.append(_token(label, kind, places, terms, hottest))
    rest = text[at:]
    if rest.strip():
        shown = rest if len(rest) <= SHOWN_UNREAD else rest[:SHOWN_UNREAD] + " …"
        parts.append(element("span", escape(shown), class_="unread", title="cut off, not read"))
    return f'<div class="text">{"".join(parts)}</div>'


def _made(
    explanation: Explanation, side: str, matched: Sequence[MatchedTerm] | None
) -> dict[int, list[tuple[str, float]]]:
    """Collect what comes from each position: terms, with their weight or share."""
    made: dict[int, list[tuple[str, float]]] = {}
    if matched is None:
        for term in explanation.terms:
            made.setdefault(term.position, []).append((term.term, term.weight))
        return made
    for one in matched:
        position = (one.query if side == "q" else one.document).position
        made.setdefault(position, []).append((one.term, one.share))
    return made


def _token(
    label: str, kind: str, places: str, terms: Sequence[tuple[str, float]], hottest: float
) -> str:
    """Write one token, which can be chosen if any terms come from it."""
    if not terms:
        return element("span", escape(label), class_=kind)
    told = ", ".join(f"{term} {weight:.2f}" for term, weight in terms)
    return element(
        "span",
        escape(label),
        class_=kind,
        style=f"--heat:{sum(weight for _, weight in terms) / hottest:.2f}",
        data_at=places,
        data_says=f"“{label}” → {told}",
        tabindex=0,
        role="button",
    )


def _segments(explanation: Explanation) -> list[tuple[list[int], int, int]]:
    """Return the positions that stand for each stretch of the text, with its start and end.

    Tokens that share characters, such as bytes of one emoji, share a stretch; one that stands for
    no characters, such as [CLS], is an empty stretch after those before it.
    """
    segments: list[tuple[list[int], int, int]] = []
    at = 0
    for position, token in enumerate(explanation.tokens):
        if token.span is None:
            segments.append(([position], at, at))
        elif token.span[0] < at:
            positions, start, _ = segments[-1]
            at = max(at, token.span[1])
            segments[-1] = ([*positions, position], start, at)
        else:
            at = token.span[1]
            segments.append(([position], token.span[0], at))
    return segments


def _quoted(explanation: Explanation, term: ExplainedTerm) -> str:
    """Name the source of a term, and its word where that is more."""
    source, word = explanation.source(term), explanation.word(term)
    inside = "" if source == word else f" in <q>{escape(word)}</q>"
    return f"<q>{escape(source)}</q>{inside}"


def _plain(html: str) -> str:
    """Return what a piece of _quoted's HTML says, as text."""
    return unescape(html.replace("<q>", "“").replace("</q>", "”"))
