"""What happens to one text on its way through a model, each step with its arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray
from minisplade.explain import ExplainedTerm, Explanation, find_sources
from minisplade.figures import curves, heat_map
from minisplade.models import MaskedLanguageModel, heads
from minisplade.pooling import Activation, Strategy, splade_pool
from minisplade.tokenization import Token, tokenize
from minisplade.trace import prose
from minisplade.vectors import SparseVector, SparseVectors

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """One step: what it is for, the functions that do it, and the arrays that come out."""

    name: str
    about: str
    functions: tuple[str, ...]  # each as "minisplade/models/bert.py: embed"
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """All that a model computes for one text, by the readable functions of the reference path.

    The logits of some chosen terms are followed through all layers: lens[i] is what the head
    would have said, had the encoder ended after i layers (nostalgebraist 2020, "interpreting GPT:
    the logit lens"); lens[-1] are the logits themselves. Ranks tell more than logits there: what
    is large at a token at once may be what the model knows least.
    """

    text: str
    tokens: tuple[Token, ...]  # T
    terms: tuple[ExplainedTerm, ...]  # the chosen ones, C, as they were asked for
    hidden_states: FloatArray  # float32 (layers + 1, T, D), as Step has; first the embeddings
    attention: FloatArray  # float32 (layers, H, T, T); row t is what token t takes from each
    lens: FloatArray  # float32 (layers + 1, T, C)
    ranks: IdArray  # int32 (layers + 1, T, C), among the logits of all V terms, from 1
    num_positive: IdArray  # int32 (layers + 1,), of all T times V logits
    vector: SparseVector  # what encode returns
    listed: tuple[tuple[str, float], ...]  # its terms and weights, heaviest first
    stages: tuple[Stage, ...]

    @property
    def norms(self) -> FloatArray:
        """The lengths of the hidden states, float32 (layers + 1, T)."""
        return np.linalg.norm(self.hidden_states, axis=-1)

    @property
    def logits(self) -> FloatArray:
        """The logits of the chosen terms at each token, float32 (T, C)."""
        return self.lens[-1]

    def source(self, term: ExplainedTerm) -> str:
        """Return the characters that a term comes from, or the token's name if there are none."""
        return Explanation(self.text, self.tokens, self.terms, self.vector).source(term)

    def to_html(self) -> str:
        """Return a page of HTML that needs no other file: all stages with their pictures."""
        from minisplade.trace.page import trace_page

        return trace_page(self)

    def attention_svg(self, layer: int, head: int) -> str:
        """Draw what each token looks at in one head; layers and heads count from 0."""
        labels = [token.string for token in self.tokens]
        title = f"Layer {layer + 1}, head {head + 1}: each row looks at"
        return heat_map(title, self.attention[layer, head], labels, labels)

    def lens_svg(self) -> str:
        """Draw the logit of each chosen term after each layer, at the token where it wins."""
        series = [
            (term.term, self.lens[:, term.position, place].tolist(), term.colour)
            for place, term in enumerate(self.terms)
        ]
        title = "Logit of each term, at the token where it ends largest"
        return curves(title, self.steps, series)

    @property
    def steps(self) -> list[str]:
        """The names of what hidden_states, lens and ranks hold, layers + 1 of them."""
        return ["embeddings", *(f"layer {number}" for number in range(1, len(self.lens)))]


def run_traced(
    model: MaskedLanguageModel,
    text: str,
    tokens: tuple[Token, ...],
    vector: SparseVector,
    chosen: IdArray,
    terms: Sequence[str],
    strategy: Strategy,
    activation: Activation,
) -> Trace:
    """Run the reference functions one after the other, and keep what each gives.

    chosen: int32 (C,), the terms whose logits are kept; terms: the strings of all V.
    """
    input_ids = np.array([[token.term_id for token in tokens]], dtype=np.int32)
    mask = np.ones(input_ids.shape, dtype=bool)
    steps = list(model.steps(input_ids, mask))
    states = [step.hidden_states for step in steps]
    lens, ranks, num_positive = zip(*(_look_through(model, x, chosen) for x in states))
    weights = splade_pool(lens[-1][None], mask, strategy, activation)[0]
    explained = _explained(text, tokens, chosen, weights, lens[-1], terms)
    config = model.config
    embedded = prose.ROTARY_EMBEDDINGS if config.rotary_bases else prose.EMBEDDINGS
    next_layer = prose.SHARED_LAYER if config.shared_layers else prose.NEXT_LAYER
    stages = [
        _stage("text to tokens", prose.TOKENS, [tokenize], input_ids=input_ids[0]),
        _stage("tokens to vectors", embedded, [steps[0].function], hidden_states=states[0][0]),
    ]
    for number, step in enumerate(steps[1:], start=1):
        assert step.attention is not None
        stages.append(
            _stage(
                f"layer {number}",
                prose.FIRST_LAYER if number == 1 else next_layer,
                [step.function],
                attention=step.attention[0],
                hidden_states=step.hidden_states[0],
                norms=np.linalg.norm(step.hidden_states[0], axis=-1),
            )
        )
    head: list[Callable[..., Any]] = [heads.mlm_transform, heads.mlm_logits]
    pooling = prose.POOLING[strategy] + prose.ACTIVATION[activation]
    stages += [
        _stage("vectors to logits", prose.LOGITS, head, logits=lens[-1]),
        _stage(
            "logits to weights",
            pooling,
            [splade_pool],
            maxima=lens[-1].max(axis=0),
            weights=weights,
        ),
        _stage(
            "the sparse vector",
            prose.VECTOR,
            [SparseVectors.from_dense],
            term_ids=vector.term_ids,
            weights=vector.weights,
        ),
    ]
    return Trace(
        text=text,
        tokens=tokens,
        terms=explained,
        hidden_states=np.concatenate(states),
        attention=np.concatenate([s.attention for s in steps if s.attention is not None]),
        lens=np.stack(lens),
        ranks=np.stack(ranks),
        num_positive=np.array(num_positive, dtype=np.int32),
        vector=vector,
        listed=tuple(
            (terms[vector.term_ids[i]], float(vector.weights[i]))
            for i in np.argsort(-vector.weights, kind="stable")
        ),
        stages=tuple(stages),
    )


def _look_through(
    model: MaskedLanguageModel, hidden_states: FloatArray, chosen: IdArray
) -> tuple[FloatArray, IdArray, int]:
    """Return logits and ranks of the chosen terms, (T, C), and how many of all are above 0."""
    logits = model.head_logits(hidden_states)[0]  # (T, V)
    mine = logits[:, chosen]
    above = [(logits > mine[:, [place]]).sum(axis=1) for place in range(chosen.size)]
    ranks = np.array(above, dtype=np.int32).reshape(chosen.size, len(mine)).T + 1
    return mine, ranks, int((logits > 0).sum())


def _explained(
    text: str,
    tokens: tuple[Token, ...],
    chosen: IdArray,
    weights: FloatArray,
    logits: FloatArray,
    terms: Sequence[str],
) -> tuple[ExplainedTerm, ...]:
    """Find the token of each chosen term, also of those that weigh nothing, in their order."""
    vector = SparseVector(chosen, weights, len(terms))
    found = find_sources(text, tokens, vector, logits, terms).terms
    by_id = {term.term_id: term for term in found}
    return tuple(by_id[term_id] for term_id in chosen.tolist())


def _stage(
    name: str, about: str, functions: Sequence[Callable[..., Any]], **arrays: NDArray[Any]
) -> Stage:
    return Stage(name, about, tuple(map(_place, functions)), arrays)


def _place(function: Callable[..., Any]) -> str:
    """Say in which file of the package a function is, as README's table does."""
    path = Path(inspect.getfile(function)).relative_to(PACKAGE.parent)
    return f"{path.as_posix()}: {function.__qualname__}"
