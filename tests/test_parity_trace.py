"""Live comparison of traces and explanations with transformers; `make parity` runs it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN

from minisplade import SparseEncoder

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("default"),  # of the reference's own imports
]

TEXTS = ["The bank raised interest rates.", "naïve 🍕 cafés", "", "the cat sat " * 9]


def reference(folder: Path) -> Any:
    """Load a folder with transformers, in float64, with the attention that can be looked at."""
    from transformers import AutoModelForMaskedLM

    model = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager")
    return model.double().eval()


@pytest.mark.parametrize("name", ["splade-tiny", "bert", "distilbert"])
def test_attention_and_every_hidden_state(name: str) -> None:
    import torch

    encoder = SparseEncoder(name if name == "splade-tiny" else GOLDEN / name)
    model = reference(encoder.folder)
    for text in TEXTS:
        trace = encoder.trace(text)
        ids = torch.tensor([[token.term_id for token in trace.tokens]])
        with torch.no_grad():
            output = model(ids, output_attentions=True, output_hidden_states=True)
        for ours, theirs in (
            (trace.attention, torch.cat(output.attentions)),
            (trace.hidden_states, torch.cat(output.hidden_states)),
        ):
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs.numpy()).max() <= 2e-5
        chosen = [term.term_id for term in trace.terms]
        assert np.abs(trace.logits - output.logits[0, :, chosen].numpy()).max() <= 2e-5


def test_the_lens_is_the_references_head(encoder: SparseEncoder) -> None:
    import torch

    model = reference(encoder.folder)
    trace = encoder.trace(TEXTS[0])
    chosen = [term.term_id for term in trace.terms]
    for step, states in enumerate(trace.hidden_states):
        with torch.no_grad():
            logits = model.cls(torch.from_numpy(states).double()).numpy()
        assert np.abs(trace.lens[step] - logits[:, chosen]).max() <= 5e-5
        for place, term_id in enumerate(chosen):
            ranks = (logits > logits[:, [term_id]]).sum(axis=1) + 1
            assert np.abs(trace.ranks[step, :, place] - ranks).max() <= 1  # ties may be broken


def test_the_winning_token_is_the_references(encoder: SparseEncoder) -> None:
    import torch

    model = reference(encoder.folder)
    for text in TEXTS:
        explanation = encoder.explain(text)
        ids = torch.tensor([[token.term_id for token in explanation.tokens]])
        with torch.no_grad():
            logits = model(ids).logits[0].numpy()
        for term in explanation.terms:
            at_source = logits[term.position, term.term_id]
            assert at_source == pytest.approx(term.logit, abs=2e-5)
            assert logits[:, term.term_id].max() - at_source < 2e-5
