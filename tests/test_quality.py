"""Retrieval quality through the whole pipeline, against figures from the PyTorch reference."""

import json
import sys
from pathlib import Path

import ir_measures
import pytest
from ir_measures import Qrel, ScoredDoc, nDCG

from minisplade import Index, SparseEncoder
from minisplade.records import read_records

pytestmark = pytest.mark.quality


@pytest.mark.parametrize(
    ("collection", "expected"), [("scifact", 0.6436), ("vaswani", 0.3725), ("cranfield", 0.3762)]
)
def test_ndcg_at_10(encoder: SparseEncoder, data: Path, collection: str, expected: float) -> None:
    folder = data / collection
    documents = list(read_records(str(folder / "corpus.jsonl.gz")))
    queries = list(read_records(str(folder / "queries.jsonl")))
    vectors = encoder.encode_document([d.text for d in documents], max_seq_length=256)
    index = Index.from_vectors(vectors, [d.key for d in documents])
    found = index.search(encoder.encode_query([q.text for q in queries]), k=10)
    run = [
        ScoredDoc(query.key, hit.key, hit.score)
        for query, hits in zip(queries, found, strict=True)
        for hit in hits
    ]
    value = ir_measures.calc_aggregate([nDCG @ 10], read_qrels(folder / "qrels.tsv"), run)
    sys.stdout.write(json.dumps({"collection": collection, "ndcg@10": value[nDCG @ 10]}) + "\n")
    assert value[nDCG @ 10] == pytest.approx(expected, abs=0.0005)


def read_qrels(path: Path) -> list[Qrel]:
    """Read judgements, without queries that have no relevant document."""
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    relevant = {query for query, _, score in rows if int(score) > 0}
    return [Qrel(query, key, int(score)) for query, key, score in rows if query in relevant]
