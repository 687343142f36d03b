"""Windows against the tokens they should hold; passages and merged vectors against all pairs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, processors
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from minisplade import InputError, PassageIndex, SparseEncoder, SparseVectors, WindowedEncoder
from minisplade.index import Index
from minisplade.passages import Windows, cut_windows, merge_by_max, piece_of

RNG = np.random.default_rng(3)
WORDS = "ocean boat doctor vaccine cat mat antidisestablishmentarianism run, of; music".split()
TEXTS = [" ".join(RNG.choice(WORDS, size)) for size in (3, 200, 1, 90, 400, 30)] + ["", "  cat  "]


def check_windows(windows: Windows) -> None:
    """Tokens of each window must be a run of those of the whole text, and the runs cover it."""
    for text, spans in zip(TEXTS, windows.of(TEXTS), strict=True):
        assert spans[0][0] == 0 and spans[-1][1] == len(text)
        whole = windows.tokenizer.encode(text, add_special_tokens=False).tokens
        reached = 0
        for span in spans:
            piece = piece_of(text, span)
            assert piece.lstrip(" ") == text[slice(*span)].lstrip(" ")
            tokens = windows.tokenizer.encode(piece, add_special_tokens=False).tokens
            assert len(tokens) <= 30
            # Somewhere among the last ones, and without a gap.
            first = next(i for i in range(reached + 1) if whole[i : i + len(tokens)] == tokens)
            assert reached == 0 or reached - 8 - 30 <= first <= reached
            reached = max(reached, first + len(tokens))
        assert reached == len(whole)


def test_windows_cover_the_text_and_keep_the_words_tokens(encoder: SparseEncoder) -> None:
    check_windows(Windows(encoder, 32, 8))


def test_byte_level_tokenizers_see_the_space_before_a_window() -> None:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)  # as RoBERTa's does
    tokenizer.train_from_iterator(TEXTS, BpeTrainer(vocab_size=280, show_progress=False))
    model: Any = SimpleNamespace(tokenizer=tokenizer, document_prompt="", max_seq_length=30)
    check_windows(Windows(model, None, 8))


def naive_windows(words: list[int], room: int, overlap: int) -> None:
    """Check the promises of cut_windows on words of so many tokens, of one character each."""
    word_ids: list[int | None] = [i for i, size in enumerate(words) for _ in range(size)]
    offsets = [(i, i + 1) for i in range(len(word_ids))]
    spans = cut_windows(offsets, word_ids, room, overlap, len(offsets))
    for (start, end), (next_start, next_end) in zip(spans, spans[1:], strict=False):
        assert start < next_start <= end < next_end
        assert end - next_start <= overlap
    for start, end in spans:
        assert 0 < end - start <= room or not words
        starts_word = start == 0 or word_ids[start] != word_ids[start - 1]
        longest = max(words)
        assert starts_word or longest > room - overlap
    assert spans[0][0] == 0 and spans[-1][1] == len(offsets)


@pytest.mark.parametrize("room", [1, 2, 5, 11])
def test_any_words_are_cut_as_promised(room: int) -> None:
    for overlap in range(room):
        for longest in (1, 3, 20):
            naive_windows(RNG.integers(1, longest + 1, 40).tolist(), room, overlap)


def test_merge_by_max_is_the_dense_maximum() -> None:
    dense = (RNG.random((9, 12)) * (RNG.random((9, 12)) < 0.4)).astype("f4")
    counts = [1, 3, 4, 1]
    merged = merge_by_max(SparseVectors.from_dense(dense), counts).check()
    ends = np.cumsum(counts)
    expected = [dense[end - count : end].max(axis=0) for count, end in zip(counts, ends)]
    assert np.array_equal(merged.toarray(), np.array(expected))


def test_a_windowed_vector_is_the_maximum_of_its_windows(encoder: SparseEncoder) -> None:
    windowed = WindowedEncoder(encoder, max_seq_length=32, overlap=8)
    found = windowed.encode_document(TEXTS).check()
    for row, text, spans in zip(found, TEXTS, windowed.windows.of(TEXTS), strict=True):
        windows = encoder.encode_document([text[start:end] for start, end in spans])
        assert np.array_equal(row.toarray(), windows.toarray().max(axis=0))
        if len(spans) == 1:
            assert row == encoder.encode_document(text)
    assert windowed.encode_query("cat") == encoder.encode_query("cat")


def test_what_comes_late_is_found(encoder: SparseEncoder) -> None:
    late = "the cat sat on the mat. " * 150 + "Vaccines protect children from measles."
    texts = [late, "the cat sat on the mat. " * 150]
    windowed = WindowedEncoder(encoder, max_seq_length=128)
    cut = Index.from_texts(texts, encoder).search("measles vaccine")
    whole = Index.from_texts(texts, windowed).search("measles vaccine")
    assert len(cut) < 1 or cut[0].score < 0.1 * whole[0].score
    assert whole[0].key == "0"
    (best,) = PassageIndex.from_texts(texts, encoder, max_seq_length=128).search(
        "measles vaccine", k=1
    )
    assert best.text is not None and best.text.endswith("measles.")
    assert late[slice(*best.span)] == best.text


@pytest.mark.parametrize("k", [1, 3, 100])
def test_documents_rank_by_their_best_passage(encoder: SparseEncoder, k: int) -> None:
    keys = [f"doc#{i}" for i in range(len(TEXTS))]
    index = PassageIndex.from_texts(TEXTS, encoder, keys, max_seq_length=16, overlap=4)
    assert len(index) == len(TEXTS)
    queries = ["a doctor on a boat", "music"]
    vectors = encoder.encode_query(queries)
    spans = Windows(encoder, 16, 4).of(TEXTS)
    for query, hits in zip(vectors, index.search(queries, k), strict=True):
        best = []
        for key, text, own in zip(keys, TEXTS, spans, strict=True):
            windows = encoder.encode_document([text[a:b] for a, b in own]).toarray()
            scores = windows.astype(float) @ query.toarray().astype(float)
            best.append((-scores.max(), keys.index(key), key, own[int(scores.argmax())]))
        expected = [row for row in sorted(best) if row[0] < 0][:k]
        assert [(hit.key, hit.span) for hit in hits] == [row[2:] for row in expected]
        assert [hit.score for hit in hits] == pytest.approx([-row[0] for row in expected])


def test_a_passage_index_is_kept_in_an_index_file(encoder: SparseEncoder, tmp_path: Path) -> None:
    index = PassageIndex.from_texts(TEXTS, encoder, max_seq_length=48)
    index.index.save(tmp_path / "passages")
    loaded = PassageIndex(Index.load(tmp_path / "passages", encoder))
    assert loaded.search("boat") == index.search("boat")


def test_arguments_are_checked(encoder: SparseEncoder) -> None:
    with pytest.raises(InputError, match="overlap is 30; expected 0 to 29"):
        WindowedEncoder(encoder, max_seq_length=32, overlap=30)
    with pytest.raises(InputError, match="1 keys for 2 documents"):
        PassageIndex.from_texts(["a", "b"], encoder, ["a"])
    with pytest.raises(InputError, match="k is 0; expected a whole number, 1 or more"):
        PassageIndex.from_texts(["a"], encoder).search("a", 0)
    with pytest.raises(InputError, match="not those of passages"):
        PassageIndex(Index.from_texts(["a"], encoder))
    with pytest.raises(InputError, match="no Unicode str"):
        WindowedEncoder(encoder).encode_document(["\ud800"])
