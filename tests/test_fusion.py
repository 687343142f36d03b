"""Fusion and re-ranking against the same sums done by hand."""

from typing import Any

import pytest

from minisplade import InputError, fuse, rerank
from minisplade.index import Hit


def ranking(scores: dict[str, float]) -> list[Hit]:
    return [Hit(key, score, ord(key), f"text {key}") for key, score in scores.items()]


FIRST = ranking({"a": 8.0, "b": 4.0, "c": 2.0})
SECOND = ranking({"c": 10.0, "a": 5.0, "d": 1.0})


def test_reciprocal_ranks_add_up() -> None:
    fused = fuse([FIRST, SECOND], 3)
    assert {hit.key: hit.score for hit in fused} == pytest.approx(
        {"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62}
    )
    assert [hit.key for hit in fused] == ["a", "c", "b"]
    assert fused[1].text == "text c"


def test_linear_fusion_adds_shares_of_the_best_score() -> None:
    fused = fuse([FIRST, SECOND], fusion="linear", weights=[0.25, 0.75])
    assert {hit.key: hit.score for hit in fused} == pytest.approx(
        {"c": 0.25 * 2 / 8 + 0.75, "a": 0.25 + 0.75 * 5 / 10, "b": 0.25 * 4 / 8, "d": 0.75 / 10}
    )
    assert [hit.key for hit in fused] == ["c", "a", "b", "d"]


def test_equal_sums_come_in_document_order() -> None:
    fused = fuse([ranking({"b": 2.0, "a": 1.0}), ranking({"a": 2.0, "b": 1.0})])
    assert [hit.key for hit in fused] == ["a", "b"]


def test_weight_zero_and_nothing_found() -> None:
    assert [hit.key for hit in fuse([FIRST, SECOND], weights=[0, 1])] == ["c", "a", "d"]
    assert fuse([[], []]) == fuse([]) == []
    assert [hit.key for hit in fuse([[], SECOND], fusion="linear")] == ["c", "a", "d"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fusion": "sum"}, "fusion is 'sum'; known: linear, rrf"),
        ({"weights": [1]}, "1 weights for 2 rankings"),
        ({"weights": [1, -1]}, "expected finite numbers, 0 or more"),
        ({"rrf_k": 0}, "rrf_k is 0; expected a number above 0"),
    ],
)
def test_arguments_are_checked(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fuse([FIRST, SECOND], **arguments)


class Lengths:
    """Judges a pair by its texts' lengths, and notes what it was asked."""

    def predict(self, inputs: list[tuple[str, str]]) -> list[float]:
        self.asked = inputs
        return [float(text[-1] in "bc") for _, text in inputs]


def test_reranking_orders_by_the_new_scores_and_keeps_ties() -> None:
    judge = Lengths()
    assert [(hit.key, hit.score) for hit in rerank("question", FIRST, judge)] == [
        ("b", 1.0),
        ("c", 1.0),
        ("a", 0.0),
    ]
    assert judge.asked == [("question", f"text {key}") for key in "abc"]
    assert [hit.key for hit in rerank("question", FIRST, judge, 1)] == ["b"]
    assert rerank("question", [], judge) == []


def test_reranking_needs_texts_and_one_score_a_pair() -> None:
    with pytest.raises(InputError, match="needs the texts"):
        rerank("question", [Hit("a", 1.0, 0, None)], Lengths())
    broken: Any = type("Broken", (), {"predict": lambda self, pairs: [1.0]})()
    with pytest.raises(InputError, match="1 scores for 3 pairs"):
        rerank("question", FIRST, broken)
