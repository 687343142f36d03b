"""A trace as a page of HTML: attention of every head, and logits layer by layer."""

from collections.abc import Sequence
from html import escape

import numpy as np

from minisplade.figures import heat_map
from minisplade.pages import beside, element, page
from minisplade.trace import Stage, Trace

SHOWN_TOKENS = 32
"""Tokens that are drawn; maps of more cannot be read."""
SHOWN_NUMBERS = 24
"""Numbers of each vector that are drawn."""
SHOWN_TERMS = 60
"""Terms of the vector that are listed."""


def trace_page(trace: Trace) -> str:
    """Return a page that walks through all stages of a trace."""
    labels = [token.string for token in trace.tokens[:SHOWN_TOKENS]]
    chosen = _first_choice(trace)
    title = "How a text becomes a sparse vector"
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="text">{escape(trace.text[:1000])}</p>',
        _cut_short(trace),
        "<p>Each step below names the function that does it; its arrays are written with their "
        "type and shape. Choose a token to follow it through the layers:</p>",
        _picker(labels, chosen),
    ]
    for number, stage in enumerate(trace.stages, start=1):
        parts.append(_heading(number, stage))
        parts.append(_stage(trace, stage, labels, chosen))
    shown = trace.attention[:, :, : len(labels), : len(labels)]
    values = {"labels": labels, "attention": np.rint(100 * shown).astype(int).tolist()}
    return page(title, "\n".join(parts), beside(__file__, "page.js"), values)


def _first_choice(trace: Trace) -> int:
    """Choose the token that the heaviest term comes from, if it is drawn."""
    position = max(trace.terms, key=lambda t: t.weight).position if trace.terms else 0
    return position if position < SHOWN_TOKENS else 0


def _cut_short(trace: Trace) -> str:
    if len(trace.tokens) <= SHOWN_TOKENS:
        return ""
    return (
        f'<p class="quiet">The text has {len(trace.tokens)} tokens; pictures show the first '
        f"{SHOWN_TOKENS}. What they add up to takes all into account.</p>"
    )


def _picker(labels: Sequence[str], chosen: int) -> str:
    buttons = [
        element(
            "button",
            escape(label),
            type="button",
            data_token=position,
            aria_pressed=str(position == chosen).lower(),
        )
        for position, label in enumerate(labels)
    ]
    return f'<div class="picker">{"".join(buttons)}</div>'


def _heading(number: int, stage: Stage) -> str:
    arrays = ", ".join(
        f"{name} {array.dtype} {array.shape}".replace(",)", ")")
        for name, array in stage.arrays.items()
    )
    functions = " and ".join(f"<code>{escape(place)}</code>" for place in stage.functions)
    return (
        f"<h2>{number}. {escape(stage.name[0].upper() + stage.name[1:])}</h2>\n"
        f"<p>{escape(stage.about)}</p>\n"
        f'<p class="quiet">{functions} gives <code>{escape(arrays)}</code></p>'
    )


def _stage(trace: Trace, stage: Stage, labels: Sequence[str], chosen: int) -> str:
    """Draw what a stage gives."""
    if "input_ids" in stage.arrays:
        return _tokens(trace, labels)
    if "attention" in stage.arrays:
        return _layer(trace, int(stage.name.split()[-1]) - 1, labels, chosen)
    if "hidden_states" in stage.arrays:
        return _vectors(trace, labels)
    if "logits" in stage.arrays:
        return _lens(trace, labels)
    return _all_terms(trace) if "term_ids" in stage.arrays else _weights(trace)


def _tokens(trace: Trace, labels: Sequence[str]) -> str:
    cells = [
        f"<td>{escape(label)}<br><span class=number>{trace.tokens[position].term_id}</span></td>"
        for position, label in enumerate(labels)
    ]
    return f'<div class="wide"><table><tr>{"".join(cells)}</tr></table></div>'


def _vectors(trace: Trace, labels: Sequence[str]) -> str:
    states = trace.hidden_states[0, : len(labels)]
    shown = states[:, :SHOWN_NUMBERS]
    # A few numbers are so large that all others would be pale beside them.
    largest = float(np.quantile(np.abs(shown), 0.98))
    title = f"The first {shown.shape[1]} of {states.shape[1]} numbers of each vector"
    columns = [str(place) for place in range(shown.shape[1])]
    key = (
        f'<p class="quiet"><span class="own key">above 0</span> '
        f'<span class="new key">below 0</span>, full colour from {largest:.1f} on</p>'
    )
    return _figure(heat_map(title, shown / largest, labels, columns)) + key


def _layer(trace: Trace, layer: int, labels: Sequence[str], chosen: int) -> str:
    parts = []
    for head in range(trace.attention.shape[1]):
        weights = trace.attention[layer, head, : len(labels), : len(labels)]
        # In a long text, what one token gets of another is little.
        largest = float(weights.max())
        title = f"Head {head + 1}: each row looks at (full colour: {largest:.0%})"
        drawn = heat_map(title, weights / largest, labels, labels)
        strip = "".join(
            element("span", escape(label), style=f"--heat:{share:.2f}", class_="token")
            for label, share in zip(labels, weights[chosen], strict=True)
        )
        told = element("p", escape(_looks_at(labels, chosen, weights[chosen])), class_="told")
        parts.append(
            element(
                "figure",
                f'{_figure(drawn)}{told}<div class="strip">{strip}</div>',
                data_layer=layer,
                data_head=head,
            )
        )
    lengths = ", ".join(
        f"{escape(label)} {norm:.1f}" for label, norm in zip(labels, trace.norms[layer + 1])
    )
    return (
        f'<div class="heads">{"".join(parts)}</div>\n'
        f'<p class="quiet">Lengths of the vectors after this layer: {lengths}</p>'
    )


def _looks_at(labels: Sequence[str], position: int, weights: np.ndarray) -> str:
    """Say what a token looks at most; page.js says the same of the token that is chosen."""
    percents = np.rint(100 * weights).astype(int)
    best = np.argsort(-percents, kind="stable")[:4]
    told = ", ".join(f"{labels[place]} {percents[place]}%" for place in best if percents[place])
    return f"“{labels[position]}” looks at {told or 'others than these'}"


def _lens(trace: Trace, labels: Sequence[str]) -> str:
    if not trace.terms:
        return ""
    steps = trace.steps
    numbers = ", ".join(
        f"{count:,} after {step}" for step, count in zip(steps, trace.num_positive.tolist())
    )
    head = "".join(f'<th class="number">{step}</th>' for step in steps)
    rows = []
    for place, term in enumerate(trace.terms):
        cells = "".join(
            f'<td class="number">{trace.lens[step, term.position, place]:.1f} '
            f'<span class="quiet">#{trace.ranks[step, term.position, place]:,}</span></td>'
            for step in range(len(steps))
        )
        source = escape(trace.source(term))
        rows.append(
            f'<tr><th scope="row"><span class="key {term.colour}">{escape(term.term)}</span></th>'
            f"<td><q>{source}</q></td>{cells}</tr>"
        )
    maps = "\n".join(_where(trace, place, labels, steps) for place in range(len(trace.terms)))
    return (
        f"<p>Logits above 0, of all tokens and terms: {numbers}.</p>\n"
        f"{_figure(trace.lens_svg())}"
        '<p class="quiet"><span class="own key">token of the text</span> '
        '<span class="new key">expansion</span></p>\n'
        f'<div class="wide"><table><tr><th>term</th><th>at</th>{head}</tr>{"".join(rows)}</table>'
        '</div>\n<p class="quiet">Logit, and rank among all terms at that token.</p>\n'
        f"{maps}"
    )


def _where(trace: Trace, place: int, labels: Sequence[str], steps: Sequence[str]) -> str:
    """Draw the logits of one term at every token after every step, those above 0."""
    logits = np.maximum(trace.lens[:, : len(labels), place], 0)
    name = trace.terms[place].term
    # Each step by its own largest: early steps say yes to everything, and loudly.
    shares = logits / np.maximum(logits.max(axis=1, keepdims=True), 1e-9)
    drawn = heat_map(f"“{name}”: where its logit is above 0", shares, steps, labels)
    return f"<details><summary>{escape(name)}: at which tokens</summary>{_figure(drawn)}</details>"


def _weights(trace: Trace) -> str:
    largest = max((term.weight for term in trace.terms), default=0) or 1
    rows = []
    for term in trace.terms:
        cells = [
            element("span", escape(term.term), class_="term"),
            element("span", "", class_="bar", style=f"width:{term.weight / largest:.1%}"),
            element("span", f"{term.weight:.3f}", class_="number"),
            element(
                "span",
                f"logit {term.logit:.2f} at <q>{escape(trace.source(term))}</q>",
                class_="from quiet",
            ),
        ]
        rows.append(element("li", "".join(cells), class_=term.colour))
    return f'<ol class="terms">{"".join(rows)}</ol>'


def _all_terms(trace: Trace) -> str:
    count = len(trace.vector)
    if not trace.listed:
        return "<p>No term is active.</p>"
    told = ", ".join(f"{escape(term)} {weight:.2f}" for term, weight in trace.listed[:SHOWN_TERMS])
    more = f" and {count - SHOWN_TERMS} more" if count > SHOWN_TERMS else ""
    return f"<p>{count} of {trace.vector.num_terms:,} terms: {told}{more}.</p>"


def _figure(drawn: str) -> str:
    return f'<div class="wide">{drawn}</div>'
