"""A trace as a walk through the model, for the terminal."""

from collections.abc import Iterator

import numpy as np

from minisplade.terminal import (
    BLUE,
    BOLD,
    DIM,
    ORANGE,
    bar,
    on_one_line,
    paragraph,
    printable,
    shade,
    styled,
    width,
)
from minisplade.trace import Stage, Trace

INDENT = "   "
SHOWN_TOKENS = 24
SHOWN_HEADS = 4
SHOWN_TERMS = 24


def walk(trace: Trace) -> Iterator[str]:
    """Tell what happens at each stage, with the numbers of this text."""
    yield styled(on_one_line(trace.text[:1000]), BOLD)
    for number, stage in enumerate(trace.stages, start=1):
        yield ""
        places = " and ".join(stage.functions)
        yield f"{styled(f'{number}  {stage.name}', BOLD)}  {styled(places, DIM)}"
        yield from paragraph(stage.about, INDENT)
        yield ""
        for line in _numbers(trace, stage):
            yield f"{INDENT}{line}".rstrip()
        shapes = (f"{name} {a.dtype} {a.shape}" for name, a in stage.arrays.items())
        yield styled(f"{INDENT}{', '.join(shapes)}".replace(",)", ")"), DIM)


def _numbers(trace: Trace, stage: Stage) -> Iterator[str]:
    """Show what a stage gives, as far as it fits."""
    if "input_ids" in stage.arrays:
        yield from _tokens(trace)
    elif "attention" in stage.arrays:
        yield from _layer(trace, int(stage.name.split()[-1]) - 1)
    elif "hidden_states" in stage.arrays:
        yield from _vectors(trace)
    elif "logits" in stage.arrays:
        yield from _lens(trace)
    elif "term_ids" in stage.arrays:
        yield from _all_terms(trace)
    else:
        yield from _weights(trace)


def _labels(trace: Trace) -> list[str]:
    return [printable(token.string)[:12] for token in trace.tokens[:SHOWN_TOKENS]]


def _tokens(trace: Trace) -> Iterator[str]:
    columns = [(label, str(token.term_id)) for label, token in zip(_labels(trace), trace.tokens)]
    for rows in _in_lines(columns):
        for row in zip(*rows, strict=True):
            yield "  ".join(
                cell.ljust(max(map(len, column))) for cell, column in zip(row, rows, strict=True)
            ).rstrip()
    if len(trace.tokens) > SHOWN_TOKENS:
        yield f"and {len(trace.tokens) - SHOWN_TOKENS} more"


def _in_lines(columns: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Break columns into groups that fit on a line each."""
    group: list[tuple[str, str]] = []
    used = len(INDENT)
    for column in columns:
        needed = max(map(len, column)) + 2
        if group and used + needed > min(width(), 110):
            yield group
            group, used = [], len(INDENT)
        group.append(column)
        used += needed
    yield group


def _vectors(trace: Trace) -> Iterator[str]:
    labels = _labels(trace)
    across = max(map(len, labels))
    for label, state, norm in zip(labels, trace.hidden_states[0], trace.norms[0]):
        numbers = " ".join(f"{number:6.2f}" for number in state[:6])
        yield f"{label.rjust(across)}  {numbers} …  length {norm:.1f}"


def _layer(trace: Trace, layer: int) -> Iterator[str]:
    """Draw the attention of each head: a row a token, a column for what it looks at."""
    labels = _labels(trace)
    across = max(map(len, labels))
    count = len(labels)
    for head, weights in enumerate(trace.attention[layer, :SHOWN_HEADS], start=1):
        yield f"head {head}: each row looks at the columns, which are the same tokens in order"
        for label, row in zip(labels, weights):
            percents = np.rint(100 * row).astype(int)
            best = [place for place in np.argsort(-row, kind="stable")[:3] if percents[place]]
            told = ", ".join(
                f"{printable(trace.tokens[place].string)} {percents[place]}%" for place in best
            )
            # A shade for each tenth or so: most attention is far below its maximum.
            drawn = "".join(2 * shade(min(1.0, 1.5 * share)) for share in row[:count])
            yield f"{label.rjust(across)}  {styled(drawn, BLUE)}  {told}"
        yield ""
    if trace.attention.shape[1] > SHOWN_HEADS:
        yield f"and {trace.attention.shape[1] - SHOWN_HEADS} more heads"
    lengths = zip(labels, trace.norms[layer + 1])
    told = ", ".join(f"{label} {norm:.1f}" for label, norm in lengths)
    yield from paragraph(f"lengths of the vectors now: {told}", "")


def _lens(trace: Trace) -> Iterator[str]:
    counts = zip(trace.num_positive.tolist(), trace.steps, strict=True)
    told = ", ".join(f"{count:,} after {step}" for count, step in counts)
    yield from paragraph(f"Logits above 0, of all tokens and terms: {told}.", "")
    if not trace.terms:
        return
    # The first and the last steps of a deep model, which fit side by side.
    shown = range(len(trace.steps)) if len(trace.steps) < 8 else [0, *range(-6, 0)]
    head = "".join(f"{trace.steps[step]:>16}" for step in shown)
    yield styled(f"{'term':16}{'at':14}{head}", DIM)
    for place, term in enumerate(trace.terms):
        cells = "".join(
            f"{trace.lens[step, term.position, place]:8.1f}"
            f"{styled(f'#{trace.ranks[step, term.position, place]}'.rjust(8), DIM)}"
            for step in shown
        )
        name = styled(printable(term.term).ljust(16), ORANGE if term.is_expansion else BLUE)
        yield f"{name}{printable(trace.source(term)):14}{cells}"
    yield styled("logit, and #rank among all terms, at the token where the term wins", DIM)


def _weights(trace: Trace) -> Iterator[str]:
    largest = max((term.weight for term in trace.terms), default=0) or 1
    for term in trace.terms:
        colour = ORANGE if term.is_expansion else BLUE
        drawn = styled(bar(term.weight / largest, 24).ljust(24), colour)
        why = f"logit {term.logit:.2f} at {printable(trace.source(term))}"
        yield f"{term.weight:6.3f}  {drawn} {printable(term.term):16} {styled(why, DIM)}"


def _all_terms(trace: Trace) -> Iterator[str]:
    told = ", ".join(f"{printable(t)} {weight:.2f}" for t, weight in trace.listed[:SHOWN_TERMS])
    more = len(trace.vector) - SHOWN_TERMS
    counted = f"{len(trace.vector)} of {trace.vector.num_terms:,} terms"
    yield from paragraph(
        f"{counted}: {told or 'none'}{f' and {more} more' if more > 0 else ''}", ""
    )
