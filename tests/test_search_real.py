"""Search over real vectors: published SPLADE queries against passages of books."""

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import naive
import numpy as np
import pytest

from minisplade import SparseEncoder, SparseVectors
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.parts import Parts
from minisplade.index.postings import build_postings
from minisplade.index.search import SearchOptions, drop_light_terms, search

pytestmark = pytest.mark.quality


@pytest.fixture(scope="module")
def passages(encoder: SparseEncoder, data: Path) -> SparseVectors:
    with gzip.open(data / "books" / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for number, line in enumerate(file) if number % 256 == 0]
    return encoder.encode_document(texts)


@pytest.fixture(scope="module", params=["splade_v3", "splade_pp_ed"])
def queries(request: pytest.FixtureRequest, encoder: SparseEncoder, data: Path) -> SparseVectors:
    path = data / "msmarco_splade_queries" / f"{request.param}.tsv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t")[1].split() for line in file][:50]
    rows = [{token: n / 100 for token, n in Counter(line).items()} for line in lines]
    return SparseVectors.from_dicts(rows, len(encoder.terms), encoder.terms)


@pytest.mark.parametrize("compact", [False, True])
def test_real_vectors(passages: SparseVectors, queries: SparseVectors, compact: bool) -> None:
    postings = build_postings(passages, compact, block_size=128)
    everything = SearchOptions()
    some = Filter.from_mask(np.arange(len(passages)) % 3 == 0, len(passages))
    dense = passages.toarray().astype(np.float64)
    for query in queries:
        used = dense[:, query.term_ids]
        for options in (everything, replace(everything, allowed=some)):
            shown = used if options is everything else used * some.allowed[:, None]
            best, scores = naive.search(shown, query.weights.astype(np.float64), 1000)
            for k in (10, 100, 1000):
                doc_ids, found = search(postings, query, replace(options, k=k))
                assert doc_ids.tolist() == best[:k]
                assert found == pytest.approx(scores[:k], rel=1e-6)
            for alpha, epsilon in ((0.9, 0.0), (0.6, 0.0), (1.0, 0.5), (0.8, 2.0)):
                shorter, lost = drop_light_terms(Parts.of([(postings, EVERYTHING)]), query, epsilon)
                nearly = search(postings, shorter, replace(options, k=100, alpha=alpha))[1]
                ideal = alpha * (np.array(scores[:100]) - lost) * (1 - 1e-6)
                reached = np.zeros(ideal.size)
                reached[: nearly.size] = nearly
                assert lost <= epsilon and np.all(reached >= ideal)
