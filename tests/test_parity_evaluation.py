"""Live comparison with the evaluators of sentence-transformers; `make parity` runs it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minisplade import SparseEncoder, SparseVectors
from minisplade.evaluation import SparseInformationRetrievalEvaluator
from minisplade.similarity import similarity

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]

RNG = np.random.default_rng(7)
WORDS = (
    "ocean boat sailor doctor patient hospital medicine cat kitten dog tax income engine wing "
    "pressure flow heat virus cell protein gene music piano river mountain"
).split()


def sentence() -> str:
    return " ".join(RNG.choice(WORDS, int(RNG.integers(2, 12))))


CORPUS = {f"d{i}": sentence() for i in range(400)}
CORPUS |= {f"copy{i}": CORPUS[f"d{i}"] for i in range(40)}  # equal scores
QUERIES = {f"q{i}": sentence() for i in range(60)}
RELEVANT = {
    query: set(RNG.choice(list(CORPUS), int(RNG.integers(0, 150))).tolist()) for query in QUERIES
}


class Borrowed:
    """A model for sentence-transformers' evaluator, with minisplade's vectors and scores."""

    similarity_fn_name = "dot"
    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *args, **options: None)

    def __init__(self, encoder: SparseEncoder) -> None:
        self.encoder = encoder

    def _encoded(self, texts: list[str], encode: Any, options: dict[str, Any]) -> Any:
        import torch

        vectors = encode(texts, max_active_dims=options["max_active_dims"])
        return torch.from_numpy(vectors.toarray()).to_sparse()

    def encode_query(self, texts: list[str], **options: Any) -> Any:
        return self._encoded(texts, self.encoder.encode_query, options)

    def encode_document(self, texts: list[str], **options: Any) -> Any:
        return self._encoded(texts, self.encoder.encode_document, options)

    def similarity(self, queries: Any, documents: Any) -> Any:
        import torch

        return torch.from_numpy(
            queries.to_dense().double().numpy() @ documents.to_dense().double().numpy().T
        )

    @staticmethod
    def sparsity(embeddings: Any) -> dict[str, float]:
        from sentence_transformers import SparseEncoder as Reference

        return Reference.sparsity(embeddings)


@pytest.mark.parametrize("max_active_dims", [None, 4])
def test_keys_and_values_given_the_same_rankings(
    encoder: SparseEncoder, max_active_dims: int | None
) -> None:
    from sentence_transformers.sparse_encoder.evaluation import (
        SparseInformationRetrievalEvaluator as Reference,
    )

    options: dict[str, Any] = {"name": "small", "max_active_dims": max_active_dims}
    ours = SparseInformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, **options)
    theirs = Reference(QUERIES, CORPUS, RELEVANT, write_csv=False, **options)
    found, expected = ours(encoder), theirs(Borrowed(encoder))
    assert list(found) == list(expected)
    assert ours.primary_metric == theirs.primary_metric
    flops = "small_avg_flops"  # which is summed in float32 there
    assert found.pop(flops) == pytest.approx(expected.pop(flops), rel=1e-6)
    assert found == pytest.approx(expected, abs=1e-9)


def test_other_cutoffs(encoder: SparseEncoder) -> None:
    from sentence_transformers.sparse_encoder.evaluation import (
        SparseInformationRetrievalEvaluator as Reference,
    )

    cutoffs: dict[str, Any] = {
        "mrr_at_k": [3, 500],
        "ndcg_at_k": [1, 20],
        "accuracy_at_k": [2],
        "precision_recall_at_k": [7, 200],
        "map_at_k": [5, 440],
    }
    found = SparseInformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, **cutoffs)(encoder)
    expected = Reference(QUERIES, CORPUS, RELEVANT, write_csv=False, **cutoffs)(Borrowed(encoder))
    assert list(found) == list(expected)
    del found["avg_flops"], expected["avg_flops"]
    assert found == pytest.approx(expected, abs=1e-9)


def test_the_whole_of_both(encoder: SparseEncoder) -> None:
    """Each with its own model; scores within float32's rounding may change places."""
    import torch
    from sentence_transformers import SparseEncoder as Model
    from sentence_transformers.sparse_encoder.evaluation import (
        SparseInformationRetrievalEvaluator as Reference,
    )

    model = Model(
        str(encoder.folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32},
    )
    found = SparseInformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT)(encoder)
    expected = Reference(QUERIES, CORPUS, RELEVANT, write_csv=False)(model)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=0.005, rel=0.001), key


def test_nano_beir_aggregates_alike(
    encoder: SparseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference's aggregation over its evaluators, with local collections put into it."""
    from sentence_transformers.sparse_encoder import evaluation

    from minisplade.evaluation import SparseNanoBEIREvaluator

    parts = {"NanoSciFact": slice(0, 20), "NanoNQ": slice(20, 60)}

    def part(kind: Any, name: str) -> Any:
        chosen = dict(list(QUERIES.items())[parts[name]])
        corpus = dict(list(CORPUS.items())[: 100 + len(chosen)])
        options = {"write_csv": False} if kind is not SparseInformationRetrievalEvaluator else {}
        return kind(chosen, corpus, RELEVANT, name=name, **options)

    ours = SparseNanoBEIREvaluator.__new__(SparseNanoBEIREvaluator)
    ours.name = "NanoBEIR_mean"
    ours.evaluators = [part(SparseInformationRetrievalEvaluator, name) for name in parts]
    by_name = {"scifact": "NanoSciFact", "nq": "NanoNQ"}
    monkeypatch.setattr(
        evaluation.SparseNanoBEIREvaluator,
        "_load_dataset",
        lambda self, name, **options: part(
            evaluation.SparseInformationRetrievalEvaluator, by_name[name]
        ),
    )
    theirs = evaluation.SparseNanoBEIREvaluator(["scifact", "nq"], write_csv=False)
    found, expected = ours(encoder), theirs(Borrowed(encoder))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        # Sparsity is averaged from float32 there.
        tolerance = (
            {"rel": 1e-6} if "flops" in key or "sparsity" in key or "dims" in key else {"abs": 1e-9}
        )
        assert found[key] == pytest.approx(value, **tolerance), key


def test_similarity_of_the_stub_is_ours(encoder: SparseEncoder) -> None:
    """What the reference is given above are the scores that minisplade ranks by."""
    vectors = encoder.encode_document(list(CORPUS.values())[:20])
    borrowed = Borrowed(encoder)
    given = borrowed.similarity(
        borrowed.encode_document(list(CORPUS.values())[:20], max_active_dims=None),
        borrowed.encode_document(list(CORPUS.values())[:20], max_active_dims=None),
    ).numpy()
    assert isinstance(vectors, SparseVectors)
    assert given == pytest.approx(similarity(vectors, vectors), rel=1e-6)
