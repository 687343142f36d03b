"""Live comparison of BM25 with bm25s; `make parity` runs it."""

import sys
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from ir_measures import Qrel, ScoredDoc, nDCG

from minisplade import BM25, Index
from minisplade.records import read_records

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]

COLLECTIONS = ["scifact", "vaswani", "cranfield", "nfcorpus_processed"]


def load(folder: Path) -> tuple[list[str], list[str], list[str], list[str]]:
    documents = list(read_records(str(folder / "corpus.jsonl.gz")))
    queries = list(read_records(str(folder / "queries.jsonl")))
    return (
        [d.key for d in documents],
        [d.text for d in documents],
        [q.key for q in queries],
        [q.text for q in queries],
    )


@pytest.mark.parametrize("method", ["lucene", "atire", "bm25+"])
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.9, 0.4)])
def test_scores_of_the_same_words(data: Path, method: str, k1: float, b: float) -> None:
    """Every score of every query and document, given the same words.

    bm25s adds idf * delta for words of the query that a document lacks, which is the same for all
    documents; Lv and Zhai add delta for words that it has. So bm25+ is compared without delta.
    """
    import bm25s

    _, texts, _, queries = load(data / "cranfield")
    ours = BM25.fit(texts, method=method, k1=k1, b=b, delta=0)
    theirs = bm25s.BM25(method=method, k1=k1, b=b, delta=0)
    theirs.index([ours.analyzer(text) for text in texts], show_progress=False)
    documents = ours.encode_document(texts).to_scipy()
    found = (ours.encode_query(queries).to_scipy() @ documents.T).toarray()
    for query, scores in zip(queries, found, strict=True):
        words = [word for word in ours.analyzer(query) if word in theirs.vocab_dict]
        assert theirs.get_scores(words) == pytest.approx(scores, rel=2e-6, abs=2e-6)


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_ndcg_is_that_of_bm25s_with_settings_of_lucene(data: Path, collection: str) -> None:
    """Each with its own idea of words and the same stemmer: within 0.005 nDCG@10.

    Lucene keeps words of one letter, which bm25s would leave out.
    """
    import bm25s
    import Stemmer

    keys, texts, query_keys, queries = load(data / collection)
    lines = (data / collection / "qrels.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    relevant = {query for query, _, score in rows if int(score) > 0}
    qrels = [Qrel(query, key, int(score)) for query, key, score in rows if query in relevant]

    def ndcg(run: list[ScoredDoc]) -> float:
        return ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]

    index = Index.from_texts(texts, BM25.fit(texts), keys)
    found = index.search(queries, k=10)
    ours = ndcg([ScoredDoc(q, h.key, h.score) for q, own in zip(query_keys, found) for h in own])
    options = {
        "token_pattern": r"(?u)\b\w+\b",
        "stopwords": "en",
        "stemmer": Stemmer.Stemmer("english"),
        "show_progress": False,
    }
    theirs = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    theirs.index(bm25s.tokenize(texts, **options), show_progress=False)
    places, scores = theirs.retrieve(bm25s.tokenize(queries, **options), k=10, show_progress=False)
    run = [
        ScoredDoc(query_keys[i], keys[places[i, j]], float(scores[i, j]))
        for i, j in np.ndindex(places.shape)
        if scores[i, j] > 0
    ]
    reference = ndcg(run)
    sys.stdout.write(f"{collection}: {ours:.4f}, bm25s {reference:.4f}\n")
    assert ours == pytest.approx(reference, abs=0.005)
