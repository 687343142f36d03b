"""Explanations: sources that reproduce every weight, characters that are the right ones, sums."""

import unicodedata
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import CHECKPOINTS, GOLDEN, TEXTS
from uncompiled import assert_passes_uncompiled

from minisplade import Explanation, Index, InputError, SparseEncoder
from minisplade.demo import standard_library
from minisplade.records import read_records
from minisplade.routes import SpladeRoute
from minisplade.runtime import choose_kernel_path
from minisplade.tokenization import read_tokens, tokenize

PATHS = ["reference", "tiles"] + ["screened"] * (choose_kernel_path() == "screened")
# What has one letter, one mark, several of each, or none that the vocabulary knows.
WORDS = ["plain", "Café", "nai\u0308ve", "ÅNGSTRÖM", "e\u0301", "日", "ﬁne", "İzmir", "x"]
WORDS += ["🍕", "❤️", "👩\u200d👩\u200d👧"]
GAPS = [" ", "  ", "\n", "\t", " \u200b ", "\u3000", " \0"]


def assert_reproduces(explanation: Explanation, encoder: SparseEncoder) -> None:
    """Compute each weight again from the logit at its source, and compare all bits."""
    # The kernels take logarithms in float64 and round each; the reference stays in float32.
    kind = np.float32 if encoder.kernel_path == "reference" else np.float64
    weights = np.array([term.logit for term in explanation.terms], dtype=np.float32)
    for _ in range(2 if encoder.activation == "log1p_relu" else 1):
        weights = np.log1p(weights.astype(kind)).astype(np.float32)
    assert weights.tolist() == [term.weight for term in explanation.terms]


def assert_points_right(explanation: Explanation) -> None:
    """Strip characters of case and accents, as BERT does, and compare them with their token."""
    for token in explanation.tokens:
        if token.span is None:
            assert token.string in ("[CLS]", "[SEP]")
        elif token.string != "[UNK]":
            written = explanation.text[slice(*token.span)].lower()
            letters = unicodedata.normalize("NFD", written)
            kept = [c for c in letters if unicodedata.category(c) not in ("Mn", "Cc", "Cf")]
            assert "".join(kept) == token.string.removeprefix("##")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_sources_reproduce_weights(
    checkpoint: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINISPLADE_PATH", path)  # where the kernels know the architecture
    encoder = SparseEncoder(GOLDEN / checkpoint)
    for text in TEXTS:
        explanation = encoder.explain(text)
        assert explanation.vector == encoder.encode(text)
        assert sorted((term.term_id, term.weight) for term in explanation.terms) == list(
            explanation.vector.to_dict().items()
        )
        if encoder.strategy == "max":
            assert_reproduces(explanation, encoder)


@pytest.mark.parametrize("path", PATHS)
def test_logits_are_right_at_every_token(path: str) -> None:
    encoder = SparseEncoder(GOLDEN / "bert-untied", kernel_path=path)
    ids = encoder.tokenize(TEXTS[4:5])["input_ids"]
    terms = np.array([0, 1, 7, 63, 64, 89], dtype=np.int32)
    logits = encoder.document_route.chosen_logits(ids[0], terms)
    expected = encoder.model.logits(ids, np.ones(ids.shape, dtype=bool))[0][:, terms]
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_sources_of_real_text_reproduce_weights(encoder: SparseEncoder) -> None:
    for record in islice(standard_library(), 0, 4000, 50):
        explanation = encoder.explain(record.text)
        assert explanation.vector == encoder.encode(record.text)
        assert_reproduces(explanation, encoder)
        assert_points_right(explanation)


@pytest.mark.quality
def test_sources_of_1000_passages_reproduce_weights(encoder: SparseEncoder, data: Path) -> None:
    records = list(read_records(str(data / "books" / "corpus.jsonl.gz")))
    records += read_records(str(data / "scifact" / "corpus.jsonl.gz"))
    for number in np.random.default_rng(7).choice(len(records), 1000, replace=False):
        text = records[number].text
        explanation = encoder.explain(text)
        assert explanation.vector == encoder.encode(text)
        assert_reproduces(explanation, encoder)
        assert_points_right(explanation)


def test_words_are_found_where_they_were_put(encoder: SparseEncoder) -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        text, expected = "", []
        for word in rng.choice(WORDS, rng.integers(1, 9)):
            text += rng.choice(GAPS)
            expected.append((len(text), len(text) + len(word)))
            text += word
        found = [token.word for token in read_tokens(encoder.tokenizer, text, 512) if token.word]
        assert list(dict.fromkeys(found)) == expected, repr(text)


def test_a_token_is_a_part_of_its_word(encoder: SparseEncoder) -> None:
    tokens = read_tokens(encoder.tokenizer, "An unbelie\u0301vably small boat", 512)
    parts = [(t.string, t.span, t.word) for t in tokens if t.word == (3, 16)]
    assert "".join(string.removeprefix("##") for string, _, _ in parts) == "unbelievably"
    ends = [end for _, (_, end), _ in parts]
    assert [start for _, (start, _), _ in parts] == [3, *ends[:-1]]
    assert ends[-1] == 16


def test_a_space_before_a_word_is_no_part_of_it() -> None:
    text = "on  the mat, café"
    explanation = SparseEncoder(GOLDEN / "roberta").explain(text)
    words = [text[slice(*token.word)] for token in explanation.tokens if token.word]
    assert list(dict.fromkeys(words)) == ["on", "the", "mat", ",", "café"]


def test_truncation_and_prompt(encoder: SparseEncoder) -> None:
    text = "Café food 🍕 ships cross the ocean " * 40
    explanation = encoder.explain(text, prompt="Query: é ", max_seq_length=12)
    assert explanation.vector == encoder.encode(text, prompt="Query: é ", max_seq_length=12)
    strings = [(t.string, t.span and text[slice(*t.span)]) for t in explanation.tokens]
    prompt = [("[CLS]", None), ("query", None), (":", None), ("e", None)]
    end = [("the", "the"), ("ocean", "ocean"), ("[SEP]", None)]
    assert strings[:4] == prompt
    assert strings[4] == ("cafe", "Café")
    assert strings[-3:] == end
    assert text[: explanation.num_read].endswith(" the ocean")
    assert_reproduces(explanation, encoder)


@pytest.mark.parametrize("length", [2, 3, 20, 512])
@pytest.mark.parametrize("text", [*TEXTS, "word " * 9000, "pneumonoultra" * 900, "a" + " " * 99999])
def test_tokens_are_those_that_are_encoded(encoder: SparseEncoder, text: str, length: int) -> None:
    tokens = read_tokens(encoder.tokenizer, text, length)
    (expected,) = tokenize(encoder.tokenizer, [text], length)
    assert [token.term_id for token in tokens] == expected.tolist()
    assert [token.string for token in tokens] == [encoder.terms[i] for i in expected]


def test_expansions_and_limits(encoder: SparseEncoder) -> None:
    explanation = encoder.explain("travel by sea", max_active_dims=5)
    assert [(t.term, t.is_expansion) for t in explanation.terms] == [
        ("sea", False),
        ("travel", False),
        ("trip", True),
        ("seas", True),
        ("ship", True),
    ]
    assert [explanation.word(term) for term in explanation.terms][:2] == ["sea", "travel"]


def test_sums_name_the_token_that_adds_most() -> None:
    encoder = SparseEncoder(GOLDEN / "bert")
    route = encoder.document_route
    assert isinstance(route, SpladeRoute)
    route.way = replace(route.way, strategy="sum")
    explanation = encoder.explain("the cat sat on the mat")
    assert explanation.vector == encoder.encode("the cat sat on the mat")
    logits = encoder.model.logits(
        np.array([[t.term_id for t in explanation.tokens]], np.int32),
        np.ones((1, len(explanation.tokens)), bool),
    )[0]
    for term in explanation.terms:
        assert term.logit == pytest.approx(logits[:, term.term_id].max(), abs=1e-5)
        assert logits[term.position, term.term_id] == pytest.approx(term.logit, abs=1e-5)


def test_a_match_adds_up_to_the_score(encoder: SparseEncoder) -> None:
    records = list(islice(standard_library(), 0, 4000, 100))
    index = Index.from_texts([r.text for r in records], encoder, [r.key for r in records])
    for query in ("compress a file", "send e-mail", "naïve 🍕"):
        for hit in index.search(query, k=5):
            found = encoder.explain_match(query, records[hit.doc_id].text)
            # Hits carry the sum that was rounded to float32 on the way.
            assert found.score == pytest.approx(hit.score, rel=1e-6)
            vectors = found.query.vector, found.document.vector
            assert np.float32(found.score) == encoder.similarity(*vectors)[0, 0]
            shares = dict(index.matching_terms(found.query.vector, hit.doc_id))
            assert [term.term_id for term in found.terms] == list(shares)
            assert [term.share for term in found.terms] == pytest.approx(list(shares.values()))
            assert {t.term_id for t in found.missing} | set(shares) == set(
                found.query.vector.term_ids
            )


def test_a_match_uses_both_prompts() -> None:
    prompts = {"query": "the cat ", "document": "on the "}
    encoder = SparseEncoder(GOLDEN / "bert", prompts=prompts)
    found = encoder.explain_match("sat", "mat")
    assert found.query.vector == encoder.encode_query("sat")
    assert found.document.vector == encoder.encode_document("mat")
    assert encoder.explain("mat", prompt_name="document") == found.document


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["list"], "bad \ud800"])
def test_what_is_not_text_is_refused(encoder: SparseEncoder, text: object) -> None:
    with pytest.raises(InputError, match="text 0"):
        encoder.explain(text)  # type: ignore[arg-type]


def test_nothing_to_explain(encoder: SparseEncoder) -> None:
    explanation = encoder.explain("")
    assert [token.string for token in explanation.tokens] == ["[CLS]", "[SEP]"]
    assert explanation.num_read == 0
    assert encoder.explain_match("", "").score >= 0


def test_these_tests_pass_with_the_compiler_switched_off() -> None:
    assert_passes_uncompiled(__file__, "(bert-float16 and tiles) or sums_name or at_every_token")
