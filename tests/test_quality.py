"""Retrieval quality through the whole pipeline, against figures from the PyTorch reference."""

import json
import sys
from pathlib import Path

import pytest

from minisplade import SparseEncoder
from minisplade.evaluation import Evaluation, evaluate, load_collection

pytestmark = pytest.mark.quality

# splade-tiny by the PyTorch reference; BM25 by bm25s with Lucene's settings and words.
EXPECTED = {
    "scifact": {"splade": 0.6436, "bm25": 0.6857},
    "vaswani": {"splade": 0.3725, "bm25": 0.4342},
    "cranfield": {"splade": 0.3762, "bm25": 0.3746},
    "nfcorpus_processed": {"splade": 0.3051, "bm25": 0.3311},
}
TOLERANCES = {"splade": 0.0005, "bm25": 0.005}


@pytest.fixture(scope="module")
def evaluation(encoder: SparseEncoder, data: Path) -> Evaluation:
    """Vectors are kept in the user's cache, so that only the first run takes minutes."""
    collections = [load_collection(data / name) for name in EXPECTED]
    return evaluate(encoder, collections, max_seq_length=256)


def test_ndcg_at_10(evaluation: Evaluation) -> None:
    for comparison in evaluation.comparisons:
        name = comparison.collection.name
        found = {system: own.mean() for system, own in comparison.systems.items()}
        sys.stdout.write(json.dumps({"collection": name, "ndcg@10": found}) + "\n")
        for system, expected in EXPECTED[name].items():
            assert found[system] == pytest.approx(expected, abs=TOLERANCES[system]), name


def test_hybrid_is_at_least_as_good_as_the_better(evaluation: Evaluation) -> None:
    at_least = [
        own.systems["hybrid"].mean() >= max(own.systems[n].mean() for n in ("bm25", "splade"))
        for own in evaluation.comparisons
    ]
    assert sum(at_least) >= 3
