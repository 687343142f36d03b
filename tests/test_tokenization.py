"""Token ids of ordinary and odd texts; test_golden.py compares them with transformers."""

from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN

from minisplade import CheckpointError, InputError, SparseEncoder
from minisplade.tokenization import pad, term_strings, tokenize
from minisplade.vocabularies import load_tokenizer

VOCAB_SIZE = 30522


def test_special_tokens_frame_each_text(encoder: SparseEncoder) -> None:
    (ids,) = tokenize(encoder.tokenizer, ["A cat"], 512)
    assert [encoder.terms[i] for i in ids] == ["[CLS]", "a", "cat", "[SEP]"]
    (ids,) = tokenize(encoder.tokenizer, [""], 512)
    assert [encoder.terms[i] for i in ids] == ["[CLS]", "[SEP]"]


def test_a_long_text_is_cut_before_its_last_special_token(encoder: SparseEncoder) -> None:
    long_text = "word " * 100_000
    for length in (2, 3, 512):
        (ids,) = tokenize(encoder.tokenizer, [long_text], length)
        assert ids.size == length
        assert encoder.terms[ids[-1]] == "[SEP]"


def test_nul_is_dropped_as_the_reference_drops_it(encoder: SparseEncoder) -> None:
    first, second = tokenize(encoder.tokenizer, ["a\0b", "ab"], 512)
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", "bad \ud800 text"], "text 1 has the lone surrogate .* at position 4"),
        (["fine", 5], "text 1 is int; expected str"),
        ([None], "text 0 is NoneType; expected str"),
        ([b"bytes"], "text 0 is bytes; expected str"),
    ],
)
def test_what_is_not_text_is_named(encoder: SparseEncoder, texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokenize(encoder.tokenizer, texts, 512)
    with pytest.raises(InputError, match=message):
        encoder.encode(texts)


def test_pad_makes_a_rectangle() -> None:
    batch = pad([np.array([7, 8, 9], "i4"), np.array([5], "i4")], pad_id=1)
    assert batch.input_ids.tolist() == [[7, 8, 9], [5, 1, 1]]
    assert batch.attention_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.input_ids.dtype == np.int32


def test_every_term_has_its_string(encoder: SparseEncoder) -> None:
    terms = term_strings(encoder.tokenizer, VOCAB_SIZE + 2)
    assert len(terms) == VOCAB_SIZE + 2 and terms[-2:] == ["", ""]
    assert len(set(terms[:VOCAB_SIZE])) == VOCAB_SIZE
    assert encoder.tokenizer.token_to_id("cat") == terms.index("cat")


def test_tokenizers_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has none of tokenizer.json, vocab"):
        load_tokenizer(tmp_path, 100)
    with pytest.raises(CheckpointError, match="different models"):
        load_tokenizer(GOLDEN / "bert", 10)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a tokenizer file"):
        load_tokenizer(tmp_path, 100)


@pytest.mark.parametrize("text", ["x" * 40_000 + " cat", " " * 40_000 + "cat", "a " * 20_000])
@pytest.mark.parametrize("length", [4, 512])
def test_reading_only_the_beginning_changes_nothing(
    encoder: SparseEncoder, text: str, length: int
) -> None:
    (ids,) = tokenize(encoder.tokenizer, [text], length)
    assert ids.tolist() == encoder.tokenizer.encode(text).ids  # the truncation is still set
