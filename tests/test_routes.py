"""Routes of their own for queries and documents, and the weights of single tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, TEXTS
from layouts import (
    ROWS,
    as_array,
    copy_plain,
    static_vectors,
    table_of_weights,
    token_weights,
    write_modules,
    write_static,
)
from safetensors.numpy import save_file

from minisplade import CheckpointError, Index, InputError, SparseEncoder
from minisplade.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT for documents, with a table of token weights for queries."""
    table_of_weights(tmp_path / "model")
    return tmp_path / "model"


def test_static_queries_know_what_a_text_has_and_not_how_often(folder: Path) -> None:
    encoder = SparseEncoder(folder)
    idf = json.loads((folder / "idf.json").read_text())
    found = dict(encoder.decode(encoder.encode_query("the cat the cat")))
    assert found == pytest.approx({"the": idf["the"], "cat": idf["cat"]})
    assert len(encoder.encode_query("").term_ids) == 0
    assert encoder.encode_query([]).shape == (0, 90)
    assert encoder.encode_query(["", "a"]).shape == (2, 90)


def test_a_model_of_token_weights_alone(tmp_path: Path) -> None:
    copy_plain("bert", tmp_path / "source")
    weights = token_weights(tmp_path / "source")
    array = as_array(tmp_path / "source", weights)
    write_static(tmp_path / "model", tmp_path / "source", array)
    write_modules(tmp_path / "model", "SparseStaticEmbedding")
    expected = static_vectors(tmp_path / "source", weights)
    encoder = SparseEncoder(tmp_path / "model", kernel_path="tiles")  # which it has no use for
    assert repr(encoder).endswith("90 terms, up to 40 tokens)")
    for encode in (encoder.encode, encoder.encode_query, encoder.encode_document):
        np.testing.assert_array_equal(encode(TEXTS).toarray(), expected)
    encoder.save_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(
        SparseEncoder(tmp_path / "saved").encode(TEXTS).toarray(), expected
    )


def test_tasks(folder: Path) -> None:
    encoder = SparseEncoder(folder, prompts={"query": "on ", "document": "mat "})
    query, document = encoder.encode_query("the cat"), encoder.encode_document("the cat")
    assert query != document
    assert encoder.encode("on the cat", task="query") == query
    assert encoder.encode("mat the cat", task="document") == document
    assert encoder.encode("mat the cat") == document
    assert next(iter(encoder.encode_stream(["the cat"], task="query")))[0] == query
    assert next(iter(encoder.encode_stream(["the cat"])))[0] == document
    with pytest.raises(InputError, match="task is 'image'; expected 'query' or 'document'"):
        encoder.encode("a", task="image")  # type: ignore[call-overload]


def test_an_index_of_a_routed_model(folder: Path) -> None:
    encoder = SparseEncoder(folder)
    index = Index.from_texts(TEXTS, encoder)
    products = encoder.similarity(encoder.encode_query("the cat"), encoder.encode_document(TEXTS))
    assert index.search("the cat", k=1).scores[0] == pytest.approx(products.max(), rel=1e-6)


def test_the_command_line_encodes_queries_their_own_way(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("the cat\n")
    assert main(["encode", str(tmp_path / "texts.txt"), "--query", "-m", str(folder)]) == 0
    assert set(json.loads(capsys.readouterr().out)["terms"]) == {"the", "cat"}


def test_another_model_for_queries(tmp_path: Path) -> None:
    pair = SparseEncoder(GOLDEN / "bert", query_name_or_path=GOLDEN / "distilbert")
    assert pair.encode_query(TEXTS) == SparseEncoder(GOLDEN / "distilbert").encode(TEXTS)
    assert pair.encode_document(TEXTS) == SparseEncoder(GOLDEN / "bert").encode(TEXTS)
    pair.save_pretrained(tmp_path)
    saved = SparseEncoder(tmp_path)
    assert saved.encode_query(TEXTS) == pair.encode_query(TEXTS)
    assert saved.encode_document(TEXTS) == pair.encode_document(TEXTS)
    with pytest.raises(CheckpointError, match="terms of 95 .*|makes vectors of 95 terms"):
        SparseEncoder(GOLDEN / "bert", query_name_or_path=GOLDEN / "roberta")


def test_lengths_of_both_routes(folder: Path) -> None:
    encoder = SparseEncoder(folder)
    encoder.max_seq_length = 4
    assert encoder.encode_document("the cat sat on the mat") == encoder.encode_document("the cat")
    assert encoder.encode_query("the cat sat on mat") == encoder.encode_query("the cat sat on")
    assert encoder.encode_query("on the mat", max_seq_length=2) == encoder.encode_query("on the")
    for wrong in (1, 41):
        with pytest.raises(InputError, match=f"max_seq_length is {wrong}; this model can take"):
            encoder.max_seq_length = wrong


def test_a_model_without_logits(tmp_path: Path) -> None:
    ROWS["BAAI/bge-m3"](tmp_path)
    encoder = SparseEncoder(tmp_path)
    assert "2 layers of 16, 95 terms, up to 40 tokens" in repr(encoder)
    for name in ("model", "strategy", "activation"):
        with pytest.raises(InputError, match="has no masked language model for documents"):
            getattr(encoder, name)
    assert encoder.encode([]).shape == (0, 95)
    special = {encoder.tokenizer.token_to_id(t) for t in ("<s>", "</s>", "<pad>", "<unk>")}
    assert not special & set(encoder.encode("the cat <unk> <pad>").term_ids.tolist())


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("idf.json", {"the": "much"}, "gives 'the' the weight 'much'; expected a number"),
        ("idf.json", {"the": True}, "gives 'the' the weight True; expected a number"),
        ("idf.json", {"the": 1e300}, "far too large"),
        ("idf.json", {"the": float("nan")}, "far too large"),
        ("idf.json", [1], "expected a JSON object"),
    ],
)
def test_tables_that_are_wrong(folder: Path, name: str, content: Any, expected: str) -> None:
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=expected):
        SparseEncoder(folder)


@pytest.mark.parametrize("line", ["the", "the\tmuch", "the 1.0", "the\t1\t"])
def test_lines_that_are_wrong(folder: Path, line: str) -> None:
    (folder / "idf.json").unlink()
    (folder / "query_token_weights.txt").write_text(f"cat\t1.5\n{line}\n")
    with pytest.raises(CheckpointError, match="is not lines of token, tab, weight|expected a num"):
        SparseEncoder(folder)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"other": np.ones(90, np.float32)}, "no row named weight"),
        ({"weight": np.ones((90, 1), np.float32)}, "no row named weight"),
        ({"weight": np.ones(91, np.float32)}, r"weight .* has shape \(91,\).* asks for \(90,\)"),
        ({"weight": np.full(90, np.inf, np.float32)}, "holds NaN or infinite weights"),
    ],
)
def test_static_weights_that_are_wrong(
    tmp_path: Path, tensors: dict[str, Any], expected: str
) -> None:
    ROWS["naver/splade-v3-doc"](tmp_path)
    save_file(tensors, tmp_path / "query_0_SparseStaticEmbedding" / "model.safetensors")
    with pytest.raises(CheckpointError, match=expected):
        SparseEncoder(tmp_path)


@pytest.mark.parametrize("name", ["opensearch multilingual-v1", "BAAI/bge-m3"])
def test_weights_of_tokens_come_from_those_tokens(tmp_path: Path, name: str) -> None:
    ROWS[name](tmp_path)
    encoder = SparseEncoder(tmp_path)
    found = encoder.explain_match("the cat", "the cat sat on the mat")
    query, document = encoder.encode_query("the cat"), encoder.encode_document(found.document.text)
    assert (found.query.vector, found.document.vector) == (query, document)
    assert found.score == pytest.approx(encoder.similarity(query, document)[0, 0], rel=1e-6)
    assert found.terms
    for term in found.query.terms:
        assert found.query.tokens[term.position].term_id == term.term_id
        assert not term.is_expansion
        assert term.logit == term.weight
    assert encoder.explain_match("", "").query.terms == ()


def test_a_route_of_a_table_has_no_trace(folder: Path) -> None:
    encoder = SparseEncoder(folder)
    assert encoder.trace("the cat").vector == encoder.encode_document("the cat")
    assert "[CLS]" not in [t.string for t in encoder.explain("the cat", task="query").tokens]
    with pytest.raises(InputError, match="weighs such texts by a table or a layer of its own"):
        encoder.trace("the cat", task="query")


def test_a_trace_does_not_pass_over_what_restricts_vectors(tmp_path: Path) -> None:
    ROWS["naver/splade-v3-lexical"](tmp_path)
    encoder = SparseEncoder(tmp_path)
    explained = encoder.explain("the cat sat", task="query")
    assert explained.terms
    assert not any(term.is_expansion for term in explained.terms)
    with pytest.raises(InputError, match="pooled from the logits"):
        encoder.trace("the cat sat", task="query")
