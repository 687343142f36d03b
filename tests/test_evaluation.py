"""Metrics against ir-measures and sums by hand; systems against searches done one by one."""

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, P, Qrel, R, ScoredDoc, Success, nDCG

from minisplade import (
    BM25,
    HybridSearch,
    Index,
    InputError,
    SparseEncoder,
    SparseVectors,
    analysis,
)
from minisplade.evaluation import (
    Collection,
    SparseInformationRetrievalEvaluator,
    SparseNanoBEIREvaluator,
    evaluate,
    load_collection,
    read_qrels,
    read_run,
    write_run,
)
from minisplade.evaluation.cache import VectorCache
from minisplade.evaluation.metrics import measure, ranking_metrics
from minisplade.evaluation.significance import randomization_test
from minisplade.evaluation.tradeoffs import find_tradeoffs, quantize
from minisplade.evaluation.trec import Run

RNG = np.random.default_rng(11)
DOCUMENTS = {
    "cat": "The cat sat on the mat.",
    "boat": "A sailor crosses the ocean in a small boat.",
    "clinic": "Doctors treat patients with medicine in a hospital.",
    "kitten": "Kittens sleep all day; so do cats.",
    "tax": "How to file an income tax return.",
    "ship": "The ship left the harbour for a long journey.",
}
QUERIES = {"q1": "travel by sea", "q2": "cats", "q3": "health care", "q4": "zzzz"}
QRELS = {
    "q1": {"boat": 2, "ship": 1},
    "q2": {"kitten": 1, "cat": 1, "tax": 0},
    "q3": {"clinic": 1},
    "q4": {"tax": 1},
}
COLLECTION = Collection("small", DOCUMENTS, QUERIES, QRELS)


def random_rankings() -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    keys = [f"d{i}" for i in range(200)]
    rankings, relevant = {}, {}
    for query in map(str, range(40)):
        rankings[query] = RNG.permutation(keys)[: int(RNG.integers(1, 120))].tolist()
        relevant[query] = set(RNG.permutation(keys)[: int(RNG.integers(1, 150))].tolist())
    return rankings, relevant


def test_ranking_metrics_agree_with_ir_measures() -> None:
    rankings, relevant = random_rankings()
    found = ranking_metrics(rankings, relevant)
    qrels = [Qrel(query, key, 1) for query, own in relevant.items() for key in own]
    run = [
        ScoredDoc(query, key, -float(rank))
        for query, own in rankings.items()
        for rank, key in enumerate(own)
    ]
    theirs = {
        **{f"accuracy@{k}": Success @ k for k in (1, 3, 5, 10)},
        **{f"precision@{k}": P @ k for k in (1, 3, 5, 10)},
        **{f"recall@{k}": R @ k for k in (1, 3, 5, 10)},
        "ndcg@10": nDCG @ 10,
        "mrr@10": RR @ 10,
    }
    expected = ir_measures.calc_aggregate(list(theirs.values()), qrels, run)
    assert found.keys() == {*theirs, "map@100"}
    for name, measured in theirs.items():
        assert found[name] == pytest.approx(expected[measured], abs=1e-12), name


def test_average_precision_is_divided_by_what_fits() -> None:
    """By hand, because trec_eval divides by all relevant documents."""
    found = ranking_metrics({"q": ["a", "x", "b"]}, {"q": {"a", "b", "c"}})
    assert found["map@100"] == pytest.approx((1 + 2 / 3) / 3)
    many = {f"d{i}" for i in range(150)}
    assert ranking_metrics({"q": sorted(many)[:100]}, {"q": many})["map@100"] == 1


def naive_evaluation(model: SparseEncoder) -> dict[str, list[str]]:
    """Rank every document for each query, also those without a common term."""
    queries = model.encode_query(list(QUERIES.values())).toarray().astype(float)
    documents = model.encode_document(list(DOCUMENTS.values())).toarray().astype(float)
    scores = queries @ documents.T
    keys = list(DOCUMENTS)
    order = [sorted(range(6), key=lambda i: (-own[i], keys[i])) for own in scores]
    return {query: [keys[i] for i in own] for query, own in zip(QUERIES, order, strict=True)}


def test_the_evaluator_ranks_every_document(encoder: SparseEncoder) -> None:
    evaluator = SparseInformationRetrievalEvaluator(
        QUERIES, DOCUMENTS, COLLECTION.relevant, name="small"
    )
    found = evaluator(encoder)
    rankings = naive_evaluation(encoder)
    for key, value in ranking_metrics(rankings, COLLECTION.relevant).items():
        assert found[f"small_dot_{key}"] == value
    assert evaluator.primary_metric == "small_dot_ndcg@10"
    queries = encoder.encode_query(list(QUERIES.values())).toarray() > 0
    documents = encoder.encode_document(list(DOCUMENTS.values())).toarray() > 0
    assert found["small_avg_flops"] == pytest.approx(
        np.mean([np.sum(q & d) for q in queries for d in documents])
    )
    assert found["small_query_active_dims"] == pytest.approx(queries.sum() / 4, rel=1e-6)
    assert found["small_corpus_sparsity_ratio"] == pytest.approx(1 - documents.mean(), rel=1e-6)
    assert list(found)[-5:] == [
        f"small_{name}"
        for name in (
            *("query_active_dims", "query_sparsity_ratio"),
            *("corpus_active_dims", "corpus_sparsity_ratio", "avg_flops"),
        )
    ]


def test_cosine_ranks_by_direction() -> None:
    corpus = SparseVectors.from_dense(np.array([[9, 9, 0], [1, 0, 0]], dtype="f4"))
    queries = SparseVectors.from_dense(np.array([[1, 0, 0]], dtype="f4"))
    evaluator = SparseInformationRetrievalEvaluator(
        {"q": "?"}, {"long": "", "right": ""}, {"q": {"right"}}
    )
    assert evaluator.rank(queries, corpus)["q"] == ["long", "right"]
    assert evaluator.rank(queries, corpus, "cosine")["q"] == ["right", "long"]
    with pytest.raises(InputError, match="an index can rank by dot and cosine"):
        evaluator.rank(queries, corpus, "manhattan")


def test_evaluators_refuse_what_cannot_be_measured() -> None:
    with pytest.raises(InputError, match="no query with relevant documents"):
        SparseInformationRetrievalEvaluator(QUERIES, DOCUMENTS, {"q1": set()})
    with pytest.raises(InputError, match="no folders"):
        SparseNanoBEIREvaluator([])


def write_beir(folder: Path, queries: dict[str, str]) -> Path:
    import json

    folder.mkdir()
    for name, own in (("corpus", DOCUMENTS), ("queries", queries)):
        lines = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in own.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    rows = [f"{q}\t{d}\t{g}\n" for q, own in QRELS.items() if q in queries for d, g in own.items()]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def test_nano_beir_is_the_mean(encoder: SparseEncoder, tmp_path: Path) -> None:
    first = write_beir(tmp_path / "NanoOne", {"q1": QUERIES["q1"]})
    second = write_beir(tmp_path / "NanoTwo", {q: QUERIES[q] for q in ("q2", "q3", "q4")})
    found = SparseNanoBEIREvaluator([first, second])(encoder)
    for key in ("dot_ndcg@10", "dot_map@100", "dot_accuracy@1"):
        mean = (found[f"NanoOne_{key}"] + found[f"NanoTwo_{key}"]) / 2
        assert found[f"NanoBEIR_mean_{key}"] == pytest.approx(mean)
    # Sparsity is that of all queries together, one in the first collection and three in the other.
    sizes = [len(encoder.encode_query(text)) for text in QUERIES.values()]
    assert found["NanoBEIR_mean_query_active_dims"] == pytest.approx(np.mean(sizes), rel=1e-6)
    whole = SparseInformationRetrievalEvaluator(QUERIES, DOCUMENTS, COLLECTION.relevant)(encoder)
    assert found["NanoBEIR_mean_avg_flops"] == pytest.approx(whole["avg_flops"])


def test_measures_of_runs() -> None:
    run = {"q1": {"boat": 3.0, "tax": 2.0, "ship": 1.0}, "q2": {"tax": 1.0}}
    values = measure(QRELS, run, ["nDCG@10", "RR@10"])
    dcg = 2 + 1 / math.log2(4)
    ideal = 2 + 1 / math.log2(3)
    assert values["nDCG@10"] == pytest.approx({"q1": dcg / ideal, "q2": 0, "q3": 0, "q4": 0})
    assert values["RR@10"] == pytest.approx({"q1": 1, "q2": 0, "q3": 0, "q4": 0})
    with pytest.raises(InputError, match="a measure that ir-measures does not know"):
        measure(QRELS, run, ["nonsense@@"])


def test_written_runs_measure_alike_in_trec_eval(tmp_path: Path) -> None:
    import pytrec_eval

    rankings, relevant = random_rankings()
    qrels = {query: dict.fromkeys(sorted(own), 1) for query, own in relevant.items()}
    run = {
        query: {key: 1 / (1 + rank) for rank, key in enumerate(own)}
        for query, own in rankings.items()
    }
    write_run(tmp_path / "run", run)
    write_qrels = "".join(
        f"{q} 0 {key} {g}\n" for q, own in qrels.items() for key, g in own.items()
    )
    (tmp_path / "qrels").write_text(write_qrels)
    assert read_qrels(tmp_path / "qrels") == qrels
    ours = measure(qrels, run)
    names = {"nDCG@10": "ndcg_cut_10", "AP@100": "map_cut_100", "R@100": "recall_100"}
    with open(tmp_path / "qrels") as judged, open(tmp_path / "run") as ranked:
        judge = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(judged), set(names.values()))
        theirs = judge.evaluate(pytrec_eval.parse_run(ranked))
    for name, their_name in names.items():
        expected = {query: own[their_name] for query, own in theirs.items()}
        assert ours[name] == pytest.approx(expected, abs=1e-12)


def test_the_randomization_test_counts_swaps() -> None:
    """All 2^n swaps, by hand, are what the test samples."""
    first, second = [0.5, 0.7, 0.2, 0.9, 0.6, 0.4], [0.4, 0.3, 0.3, 0.5, 0.2, 0.35]
    differences = np.subtract(first, second)
    signs = 1 - 2 * ((np.arange(64)[:, None] >> np.arange(6)) & 1)
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    assert randomization_test(first, second) == pytest.approx(exact, abs=0.01)
    assert randomization_test(first, first) == 1
    shifted = (np.arange(40) / 100).tolist()
    assert randomization_test([v + 0.3 for v in shifted], shifted) < 0.001


def test_systems_are_what_their_names_say(encoder: SparseEncoder, tmp_path: Path) -> None:
    names = ["bm25", "splade", "hybrid", "rrf", "words"]
    evaluation = evaluate(
        encoder,
        [COLLECTION],
        systems=names,
        reranker=Backwards(),
        runs={"theirs": {"q1": {"boat": 1.0}}},
        cache=tmp_path,
        max_seq_length=64,
    )
    (comparison,) = evaluation.comparisons
    assert list(comparison.systems) == [*names, "reranked", "theirs"]
    assert comparison.systems["bm25"].p_value is None
    texts, keys = list(DOCUMENTS.values()), list(DOCUMENTS)
    both = HybridSearch.from_texts(texts, {"splade": encoder, "bm25": BM25.fit(texts)}, keys)
    searches: dict[str, Any] = {
        "bm25": Index.from_texts(texts, BM25.fit(texts), keys).search,
        "splade": Index.from_texts(texts, encoder, keys).search,
        "hybrid": both.search,
        "rrf": lambda query: both.search(query, fusion="rrf"),
    }
    for name, search in searches.items():
        for query, text in QUERIES.items():
            expected = {hit.key: hit.score for hit in search(text)}
            assert comparison.systems[name].run[query] == pytest.approx(expected, rel=1e-5)
    last = comparison.systems["words"].run["q2"]
    assert list(comparison.systems["reranked"].run["q2"]) == list(last)[::-1]
    assert comparison.systems["theirs"].values["nDCG@10"]["q2"] == 0
    metrics = SparseInformationRetrievalEvaluator(QUERIES, DOCUMENTS, COLLECTION.relevant)
    assert comparison.metrics == metrics(encoder)


def test_equal_scores_keep_their_ranks_in_runs(encoder: SparseEncoder, tmp_path: Path) -> None:
    """trec_eval ranks equal scores by name, last first; the index by document."""
    documents = {key: "A sailor crosses the ocean." for key in ("b", "c", "a")}
    collection = Collection("ties", documents, {"q": "sailor"}, {"q": {"b": 1}})
    evaluation = evaluate(encoder, [collection], systems=["splade", "rrf"], cache=tmp_path)
    for system in evaluation.comparisons[0].systems.values():
        assert list(system.run["q"]) == ["b", "c", "a"]
        assert system.mean("RR@10") == 1
        write_run(tmp_path / "run", system.run)
        assert measure(collection.qrels, read_run(tmp_path / "run")) == system.values


class Backwards:
    """A reranker that finds the last one best."""

    def predict(self, inputs: list[tuple[str, str]]) -> list[int]:
        return list(range(len(inputs)))


def test_arguments_are_checked(encoder: SparseEncoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"systems are \['bm26'\]; known: bm25, splade"):
        evaluate(encoder, [COLLECTION], systems=["bm26"], cache=tmp_path)
    run: Run = {}
    other = replace(COLLECTION, name="other")
    with pytest.raises(InputError, match="runs belong to one collection, but there are 2"):
        evaluate(encoder, [COLLECTION, other], runs={"theirs": run}, cache=tmp_path)
    for none_or_same in ([], [COLLECTION, COLLECTION]):
        with pytest.raises(InputError, match="expected one or more, all named apart"):
            evaluate(encoder, none_or_same, cache=tmp_path)
    for name in ("../outside", "bm25", "reranked", ""):
        with pytest.raises(InputError, match=f"a run is called '{name}'"):
            evaluate(encoder, [COLLECTION], runs={name: run}, cache=tmp_path)


def test_missing_packages_are_named_before_any_work(
    encoder: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package, extra in (("ir_measures", "eval"), ("Stemmer", "bm25")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            analysis._stemmer.cache_clear()
            with pytest.raises(InputError, match=rf"pip install 'minisplade\[{extra}\]'"):
                evaluate(encoder, [COLLECTION], cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_vectors_are_encoded_once(
    encoder: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text number {i % 7}" for i in range(10)]
    encoded: list[int] = []
    expected = encoder.encode_document(texts, max_seq_length=16)
    cache = VectorCache(tmp_path, encoder)
    assert cache.encode_document(texts, 16, encoded.append) == expected
    assert encoded == [7]
    again = VectorCache(tmp_path, encoder)
    assert (
        again.encode_document([*texts[::-1], "another"], 16, encoded.append)[:10] == expected[::-1]
    )
    assert encoded == [7, 1]
    again.encode_document(texts, 32, encoded.append)  # cut elsewhere: other vectors
    again.encode_query(texts, encoded.append)
    assert encoded == [7, 1, 7, 7]
    assert len(again.encode_document([])) == 0


def test_a_stopped_run_goes_on(
    encoder: SparseEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minisplade.evaluation.cache.BLOCK_TEXTS", 2)
    texts = [f"text number {i}" for i in range(6)]

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        VectorCache(tmp_path, encoder).encode_query(texts, stop)
    encoded: list[int] = []
    cache = VectorCache(tmp_path, encoder)
    assert cache.encode_query(texts, encoded.append) == encoder.encode_query(texts)
    assert sum(encoded) == 4


def test_a_damaged_cache_file_is_made_again(
    encoder: SparseEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    VectorCache(tmp_path, encoder).encode_query(["a text"])
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    cache = VectorCache(tmp_path, encoder)
    assert cache.encode_query(["a text"]) == encoder.encode_query(["a text"])
    assert "encoded again" in caplog.text


def test_another_model_has_another_place(encoder: SparseEncoder, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "cache", encoder)
    shutil.copytree(encoder.folder, tmp_path / "model")
    same = SparseEncoder(tmp_path / "model")
    assert VectorCache(tmp_path / "cache", same).folder == cache.folder
    shorter = SparseEncoder(tmp_path / "model", max_active_dims=8)
    assert VectorCache(tmp_path / "cache", shorter).folder != cache.folder
    weights = tmp_path / "model" / "config.json"
    weights.write_text(weights.read_text() + " ")
    assert VectorCache(tmp_path / "cache", same).folder != cache.folder


def test_quantized_weights_are_near_and_few() -> None:
    dense = (RNG.random((20, 30)) * 3 * (RNG.random((20, 30)) < 0.5)).astype("f4")
    vectors = SparseVectors.from_dense(dense)
    for bits in (1, 2, 4, 8):
        found = quantize(vectors, bits).check()
        step = dense.max() / (2**bits - 1)
        assert np.abs(found.toarray() - dense).max() <= step / 2 * 1.0001
        assert len(np.unique(found.weights)) <= 2**bits - 1
    assert quantize(vectors[:0], 4) == vectors[:0]


def test_tradeoffs_end_at_the_whole_vectors(encoder: SparseEncoder) -> None:
    queries = encoder.encode_query(list(QUERIES.values()))
    documents = encoder.encode_document(list(DOCUMENTS.values()))
    found = find_tradeoffs(COLLECTION, queries, documents)
    run = {
        query: dict(zip(hits.keys, hits.scores.tolist(), strict=True))
        for query, hits in zip(
            QUERIES, Index.from_vectors(documents, list(DOCUMENTS)).search(queries), strict=True
        )
    }
    values = measure(QRELS, run, ["nDCG@10"])["nDCG@10"]
    assert found.quality == pytest.approx(np.mean(list(values.values())))
    assert [point.setting for point in found.active_dims] == [8, 16]
    shares = [point.postings for point in found.active_dims]
    assert shares == sorted(shares) and shares[-1] < 1
    assert found.impact_bits[-1].postings > 0.95
    assert found.document_sizes.tolist() == [len(row) for row in documents]


def test_collections_and_evaluators_meet(encoder: SparseEncoder, tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "small", QUERIES)
    assert load_collection(folder) == COLLECTION
