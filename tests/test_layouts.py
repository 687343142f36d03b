"""Every published layout that layouts.py reproduces: it loads, and its vectors are right."""

from pathlib import Path

import numpy as np
import pytest
from conftest import TEXTS
from layouts import ROWS

from minisplade import SparseEncoder

TOLERANCE = 1e-5


@pytest.mark.parametrize("row", ROWS)
def test_a_published_layout(row: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    expected = ROWS[row](folder)
    encoder = SparseEncoder(folder)
    for encode, wanted in (
        (encoder.encode_document, expected.documents),
        (encoder.encode_query, expected.queries),
        (encoder.encode, expected.documents),
    ):
        found = encode(TEXTS[: len(wanted)]).check().toarray()
        # Sums over 40 tokens are larger than maxima, and so is their rounding.
        scale = max(1.0, float(wanted.max()) / 4)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < TOLERANCE * scale
        assert wanted.any()
    # What is written again says the same.
    encoder.save_pretrained(tmp_path / "saved")
    again = SparseEncoder(tmp_path / "saved")
    assert again.encode_query(TEXTS) == encoder.encode_query(TEXTS)
    assert again.encode_document(TEXTS) == encoder.encode_document(TEXTS)
