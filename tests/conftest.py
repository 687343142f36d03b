"""Fixtures that several test modules share."""

import os
from pathlib import Path

import pytest

from minisplade import SparseEncoder

GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
TEXTS = [
    "",
    "a",
    "the cat sat on the mat",
    "Sphinx of black quartz, judge my vow!",
    "the five boxing wizards jump quickly " * 9,
    "naïve café",
]
DATA = Path(os.environ.get("MINISPLADE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def encoder() -> SparseEncoder:
    """The default model, splade-tiny, with its real weights."""
    return SparseEncoder()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of test collections, where this machine has it."""
    if not DATA.is_dir():
        pytest.skip(f"no test collections in {DATA}; set MINISPLADE_TEST_DATA to their folder")
    return DATA
