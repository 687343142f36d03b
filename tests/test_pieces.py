"""Plain text cut from memory against the tokenizers library itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from minisplade import SparseEncoder, pieces
from minisplade.pieces import plain_tokenizer
from minisplade.tokenization import tokenize

SOME = ["cat", "Cats", "unbelievably", "x" * 101, "a1b2", "[MASK]", "[sep]", "don't", "e.g.", "_"]
TEXTS = st.lists(
    st.one_of(
        st.sampled_from([*SOME, *" \t\n\r.,;$^`~|[]{}\x00\x07\x0b\x0c\x1c\x7f\x85\xa0é漢ß"]),
        st.text(st.characters(max_codepoint=127), max_size=8),
    ),
    max_size=30,
).map("".join)


@pytest.fixture(scope="module")
def tokenizer(encoder: SparseEncoder) -> Tokenizer:
    return Tokenizer.from_str(encoder.tokenizer.to_str())


def by_library(tokenizer: Tokenizer, text: str, length: int, special: bool) -> list[int]:
    tokenizer.enable_truncation(length)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=special).ids
    return ids


@settings(max_examples=400, deadline=None)
@given(st.lists(TEXTS, max_size=4), st.integers(2, 40), st.booleans())
def test_tokens_are_those_of_the_library(
    tokenizer: Tokenizer, texts: list[str], length: int, special: bool
) -> None:
    found = tokenize(tokenizer, texts, length, special_tokens=special)
    expected = [by_library(tokenizer, text, length, special) for text in texts]
    assert [ids.tolist() for ids in found] == expected


def test_plain_text_is_known_and_other_text_is_not(tokenizer: Tokenizer) -> None:
    plain = plain_tokenizer(tokenizer)
    assert plain is not None
    for text in ("", "Cats, and\tdogs!\n", "~" * 20, "x" * 300):
        ids = plain.cut(text, 512, True)
        assert ids is not None
        assert ids.tolist() == by_library(tokenizer, text, 512, True)
    for text in ("café", "a\0b", "a\x0bb", "[MASK]", "a [mask] b", "“"):
        assert plain.cut(text, 512, True) is None
    assert plain.cut("cat", 2, True) is None  # no room for words


def test_a_tokenizer_that_changes_is_understood_anew(tokenizer: Tokenizer) -> None:
    own = Tokenizer.from_str(tokenizer.to_str())
    before = tokenize(own, ["a zyzzyva"], 512)[0].tolist()
    own.add_tokens([AddedToken("zyzzyva", normalized=True)])
    assert tokenize(own, ["a zyzzyva"], 512)[0].tolist() == [*before[:2], 30522, before[-1]]
    own.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert tokenize(own, ["A"], 512)[0].tolist() == by_library(own, "A", 512, True)
    own.normalizer = normalizers.Lowercase()
    assert plain_tokenizer(own) is None


def test_memory_is_bounded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MOST_WORDS", 3)
    own = Tokenizer.from_str(tokenizer.to_str())
    text = "one two three four five six"
    for _ in range(2):
        assert tokenize(own, [text], 512)[0].tolist() == by_library(own, text, 512, True)
    plain = plain_tokenizer(own)
    assert plain is not None and len(plain.pieces) == 3


def test_other_tokenizers_are_left_alone() -> None:
    other = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    assert plain_tokenizer(other) is None
    assert tokenize(other, ["a b"], 512)[0].tolist() == [0, 1]
