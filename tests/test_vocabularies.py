"""Tokenizers built from vocabulary files, against the tokenizer.json that says the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN, TEXTS
from layouts import to_vocabulary
from tokenizers import Tokenizer

from minisplade import CheckpointError, SparseEncoder
from minisplade.vocabularies import load_tokenizer

ODD = ["THE Cat", "[MASK] the [SEP]", "日本 the", "\t\r\n", "naïve CAFÉ ", "a\u0301"]


@pytest.fixture
def word_pieces(tmp_path: Path) -> Path:
    source = GOLDEN / "bert"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    to_vocabulary(tmp_path)
    return tmp_path


def test_word_pieces(word_pieces: Path) -> None:
    built, read = load_tokenizer(word_pieces, 90), load_tokenizer(GOLDEN / "bert", 90)
    assert built.get_vocab() == read.get_vocab()
    for text in [*TEXTS, *ODD]:
        assert built.encode(text).ids == read.encode(text).ids, text


def test_real_vocabulary(encoder: SparseEncoder, tmp_path: Path) -> None:
    terms = "\r\n".join(encoder.terms) + "\r\n"  # as an editor on Windows would leave it
    (tmp_path / "vocab.txt").write_bytes(terms.encode())
    built = load_tokenizer(tmp_path, 30522)
    for text in [*TEXTS, *ODD, "A long sentence, with 42 words; or so it's said."]:
        assert built.encode(text).ids == encoder.tokenizer.encode(text).ids, text


def test_byte_pairs() -> None:
    """The golden vocabulary is that of transformers' own RobertaTokenizer; see test_golden."""
    tokenizer = load_tokenizer(GOLDEN / "roberta", 95)
    other = load_tokenizer(GOLDEN / "xlm-roberta", 95)
    assert tokenizer.get_vocab() == other.get_vocab()
    for text in [*TEXTS, "the <mask> cat", " <pad>", "THE"]:
        assert tokenizer.encode(text).ids == other.encode(text).ids, text
        pair, wanted = tokenizer.encode(text, "cat"), other.encode(text, "cat")
        assert (pair.ids, pair.type_ids) == (wanted.ids, wanted.type_ids)


def settings(folder: Path, **change: Any) -> Path:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return folder


@pytest.mark.parametrize(
    ("change", "text", "tokens"),
    [
        ({"do_lower_case": False}, "the CAT", ["[CLS]", "the", "[UNK]", "[SEP]"]),
        ({"do_lower_case": True}, "the CAT", ["[CLS]", "the", "cat", "[SEP]"]),
        ({"do_lower_case": True}, "çat", ["[CLS]", "cat", "[SEP]"]),
        ({"strip_accents": False}, "çat", ["[CLS]", "[UNK]", "[SEP]"]),
        ({"cls_token": "[SEP]"}, "cat", ["[SEP]", "cat", "[SEP]"]),
        ({"sep_token": {"content": "[MASK]"}}, "cat", ["[CLS]", "cat", "[MASK]"]),
    ],
)
def test_what_the_settings_say(
    word_pieces: Path, change: dict[str, Any], text: str, tokens: list[str]
) -> None:
    tokenizer = load_tokenizer(settings(word_pieces, **change), 90)
    assert tokenizer.encode(text).tokens == tokens


def test_characters_of_chinese_may_stay_together(word_pieces: Path) -> None:
    apart = load_tokenizer(settings(word_pieces, tokenize_chinese_chars=True), 90)
    together = load_tokenizer(settings(word_pieces, tokenize_chinese_chars=False), 90)
    assert [len(t.encode("日本").ids) for t in (apart, together)] == [4, 3]


def test_lower_case_first() -> None:
    plain = load_tokenizer(GOLDEN / "roberta", 95)
    lower = load_tokenizer(GOLDEN / "roberta", 95, lower_case=True)
    assert plain.encode("THE Cat").ids != plain.encode("the cat").ids
    assert lower.encode("THE Cat").ids == plain.encode("the cat").ids
    assert isinstance(lower, Tokenizer)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (remove("vocab.txt"), "has none of tokenizer.json, vocab.txt, vocab.json"),
        (write("vocab.txt", ""), "vocab.txt lacks the token '.UNK.'"),
        (write("vocab.txt", "[UNK]\n[CLS]\n"), "vocab.txt lacks the token '.SEP.'"),
        (write("tokenizer_config.json", '{"do_lower_case": "no"}'), "is not a tokenizer file"),
        (write("tokenizer_config.json", '{"tokenizer_class": "BertJapaneseTokenizer"}'), "MeCab"),
        (write("vocab.txt", "[PAD]\n" * 90 + "[UNK]\n[CLS]\n[SEP]\n"), "term ids up to 92"),
    ],
)
def test_vocabularies_that_are_wrong(
    word_pieces: Path, change: Callable[[Path], object], expected: str
) -> None:
    change(word_pieces)
    with pytest.raises(CheckpointError, match=expected):
        load_tokenizer(word_pieces, 90)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"vocab.json": "{}"}, "needs merges.txt beside it"),
        ({"vocab.json": "{}", "merges.txt": ""}, "lacks the token '<unk>'"),
        ({"vocab.json": "[]", "merges.txt": ""}, "expected a JSON object"),
        (
            {"vocab.json": '{"<s>": 0, "</s>": 1, "<unk>": 2}', "merges.txt": "x y\n"},
            "is not a tokenizer file",
        ),
        ({"vocab.json": '{"<s>": "a", "</s>": 1, "<unk>": 2}', "merges.txt": ""}, "not a token"),
    ],
)
def test_byte_pairs_that_are_wrong(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=expected):
        load_tokenizer(tmp_path, 90)
