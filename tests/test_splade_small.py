"""The figures on the model card of rasyosef/splade-small, where its files are to be had."""

import os

import numpy as np
import pytest
from test_encoder import PASSAGES, QUESTION

from minisplade import ModelNotFoundError, SparseEncoder


def test_scores_on_the_model_card() -> None:
    try:
        encoder = SparseEncoder(
            os.environ.get("MINISPLADE_SPLADE_SMALL", "splade-small"),
            local_files_only="CI" in os.environ,
        )
    except ModelNotFoundError as error:
        pytest.skip(
            "splade-small is not here: set MINISPLADE_SPLADE_SMALL to its folder, or let the Hub "
            f"be reached ({str(error).splitlines()[0]})"
        )
    scores = encoder.similarity(encoder.encode_query(QUESTION), encoder.encode_document(PASSAGES))
    assert scores == pytest.approx(np.array([[26.3104, 20.4381, 15.5539]]), abs=1e-3)
