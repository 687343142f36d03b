"""SparseEncoder: what it takes, what it keeps and what it refuses."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import GOLDEN

from minisplade import InputError, SparseEncoder, SparseVector, SparseVectors
from minisplade import encoder as encoder_module

TEXTS = ["a cat", "", "the quick brown fox jumps over the lazy dog", "a cat", "zebra"]


def test_one_text_gives_one_vector_and_many_give_rows(encoder: SparseEncoder) -> None:
    one, many = encoder.encode("a cat"), encoder.encode(TEXTS)
    assert isinstance(one, SparseVector) and isinstance(many, SparseVectors)
    assert many.shape == (5, encoder.get_embedding_dimension()) == (5, 30522)
    assert np.abs(many[0].toarray() - one.toarray()).max() < 1e-5
    assert encoder.encode([]).shape == (0, 30522)
    assert encoder.encode(iter(TEXTS[:2])).shape == (2, 30522)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_and_order_do_not_matter(encoder: SparseEncoder, batch_size: int) -> None:
    alone = np.stack([encoder.encode(text).toarray() for text in TEXTS])
    together = encoder.encode(TEXTS, batch_size=batch_size).check().toarray()
    assert np.abs(alone - together).max() < 1e-5
    backwards = encoder.encode(TEXTS[::-1], batch_size=batch_size).toarray()[::-1]
    assert np.abs(alone - backwards).max() < 1e-5


def test_a_stream_is_read_as_it_is_needed(
    encoder: SparseEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "BLOCK_TEXTS", 3)
    taken: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(1)
            yield f"text {len(taken)}"

    blocks = encoder.encode_stream(endless())
    assert len(next(blocks)) == 3 and len(taken) == 3
    assert len(next(blocks)) == 3 and len(taken) == 6
    assert [len(b) for b in encoder.encode_stream(TEXTS)] == [3, 2]
    assert list(encoder.encode_stream([])) == []


def test_truncation(encoder: SparseEncoder) -> None:
    text = "one two three four five"
    cut = encoder.encode(text, max_seq_length=4)
    assert np.abs(cut.toarray() - encoder.encode("one two").toarray()).max() < 1e-5
    other = SparseEncoder(GOLDEN / "bert")
    other.max_seq_length = 3
    assert other.tokenize(["a b c d"])["input_ids"].shape == (1, 3)
    for length in (1, 41, 0):
        with pytest.raises(InputError, match=f"max_seq_length is {length}; .* 2 to 40"):
            other.max_seq_length = length
    with pytest.raises(InputError, match="max_seq_length is 9999"):
        encoder.encode(text, max_seq_length=9999)


def test_max_active_dims_keeps_the_heaviest(encoder: SparseEncoder) -> None:
    full = encoder.encode("a cat")
    pruned = encoder.encode("a cat", max_active_dims=4)
    assert encoder.decode(pruned) == encoder.decode(full, top_k=4)
    with pytest.raises(InputError, match="max_active_dims is 0"):
        encoder.encode("a cat", max_active_dims=0)


def test_prompts_go_before_the_text() -> None:
    prompts = {"query": "ask the cat ", "passage": "read ", "other": "on "}
    model = SparseEncoder(GOLDEN / "bert", prompts=prompts)
    text = "mat"
    assert model.encode_query(text) == model.encode("ask the cat mat")
    assert model.encode_document([text]) == model.encode(["read mat"])
    assert model.encode_query(text, prompt_name="other") == model.encode("on mat")
    assert model.encode_query(text, prompt="") == model.encode(text)
    assert next(model.encode_stream([text])) == model.encode(["read mat"])
    with pytest.raises(InputError, match="'nope' is unknown; this model has .*'query'"):
        model.encode(text, prompt_name="nope")
    default = SparseEncoder(GOLDEN / "bert", prompts=prompts, default_prompt_name="other")
    assert default.encode(text) == model.encode("on mat")
    with pytest.raises(InputError, match="'nope' is unknown"):
        SparseEncoder(GOLDEN / "bert", default_prompt_name="nope")


@pytest.mark.parametrize("wrong", [5, None, b"bytes", {"text": "a"}])
def test_inputs_that_are_no_texts(encoder: SparseEncoder, wrong: object) -> None:
    with pytest.raises(InputError, match="inputs are one .*; expected an iterable of str"):
        encoder.encode(wrong)  # type: ignore[call-overload]


def test_a_stream_is_not_one_text(encoder: SparseEncoder) -> None:
    with pytest.raises(InputError, match="inputs are one str; expected an iterable of str"):
        list(encoder.encode_stream("a text, not letters"))


def test_wrong_options(encoder: SparseEncoder) -> None:
    with pytest.raises(InputError, match="batch_size is 0"):
        encoder.encode("a", batch_size=0)
    with pytest.raises(TypeError, match="batchsize"):
        encoder.encode_query("a", batchsize=3)  # type: ignore[call-overload]


def test_garlic_powder_scores_of_splade_tiny(encoder: SparseEncoder) -> None:
    scores = encoder.similarity(encoder.encode_query(QUESTION), encoder.encode_document(PASSAGES))
    assert scores == pytest.approx(np.array([[27.3259, 23.3025, 16.0516]]), abs=1e-3)


def test_decode_sparsity_intersection(encoder: SparseEncoder) -> None:
    vectors = encoder.encode(["a cat", "the dog barks"])
    first, second = encoder.decode(vectors, top_k=2)
    assert [term for term, _ in first] == ["cat", "cats"]
    assert [term for term, _ in second] == ["dog", "bark"]
    weights = [weight for _, weight in encoder.decode(vectors[0])]
    assert weights == sorted(weights, reverse=True) and len(weights) == len(vectors[0])
    sparsity = encoder.sparsity(vectors)
    assert sparsity["active_dims"] == (len(vectors[0]) + len(vectors[1])) / 2
    assert sparsity["sparsity_ratio"] == pytest.approx(1 - sparsity["active_dims"] / 30522)
    common = encoder.intersection(vectors[0], vectors[1])
    dense = vectors.toarray()
    assert np.array_equal(common.toarray(), dense[0] * dense[1])


def test_tokenize_gives_what_a_model_takes(encoder: SparseEncoder) -> None:
    tokens = encoder.tokenize(["a cat", "cat"])
    assert set(tokens) == {"input_ids", "token_type_ids", "attention_mask"}
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert tokens["token_type_ids"].sum() == 0


@pytest.mark.parametrize("name", ["bert", "bert-untied", "bert-bfloat16", "distilbert"])
def test_saved_and_loaded_is_the_same(name: str, tmp_path: Path) -> None:
    model = SparseEncoder(GOLDEN / name, prompts={"query": "the "}, max_active_dims=20)
    model.max_seq_length = 11
    model.save_pretrained(tmp_path / "saved")
    again = SparseEncoder(tmp_path / "saved")
    assert again.max_seq_length == 11 and again.prompts == {"query": "the "}
    assert again.model.is_tied == model.model.is_tied
    assert again.encode_query(TEXTS) == model.encode_query(TEXTS)
    # Saving a model over itself must not destroy what it reads from.
    again.save_pretrained(tmp_path / "saved")
    assert SparseEncoder(tmp_path / "saved").encode_query(TEXTS) == model.encode_query(TEXTS)


def test_progress_is_shown_when_asked(
    encoder: SparseEncoder, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    encoder.encode(TEXTS, show_progress_bar=True)
    assert "5/5" in capsys.readouterr().err


def test_encoding_needs_neither_numba_nor_the_hub() -> None:
    code = (
        "import sys; sys.modules['numba'] = None; sys.modules['huggingface_hub'] = None\n"
        f"from minisplade import SparseEncoder, Index\n"
        f"encoder = SparseEncoder({str(GOLDEN / 'bert')!r})\n"
        "index = Index.from_texts(['the cat', 'mat'], encoder)\n"
        "print(len(encoder.encode('the cat')), index.search('cat')[0].key)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    count, key = run.stdout.split()
    assert int(count) == len(SparseEncoder(GOLDEN / "bert").encode("the cat")) and key in "01"


QUESTION = "how many tablespoons of garlic powder are in an ounce"
PASSAGES = [
    "1 Fluid Ounce (fl oz) = 2 tablespoons   16 Tablespoons = 1 cup   16 Fluid Ounce (fl oz) = 2 "
    "cup. two ! 9.7 grams of garlic powder will be present in a tablespoon. 1 dry ounce is between "
    "2 and 2.38 tablespoons, 16 tablespoons is incorrect. --------------------- 16 tablespoons per "
    "dry ounce. It is approximately 1/2 ounce. Usually 1/4 to 1/2 tsp.",
    "Spices, garlic powder weigh(s) 164 gram per (metric cup) or 5.47 ounce per (US cup)",
    "How many teaspoons of garlic powder equal a clove of garlic? Weigh the garlic clove and then "
    "weigh the garlic powder to make sure it is the same weight. That is how much powder equals a "
    "clove of garlic.",
]
