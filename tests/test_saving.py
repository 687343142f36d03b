"""Model folders as they are written: complete, and the same when read again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import GOLDEN, TEXTS
from layouts import ROWS
from safetensors.numpy import load_file

from minisplade import SparseEncoder
from minisplade.layout import SpladeWay, read_settings


def test_settings_are_kept(tmp_path: Path) -> None:
    prompts = {"query": "q: ", "a": "é"}
    encoder = SparseEncoder(
        GOLDEN / "bert-untied",
        prompts=prompts,
        default_prompt_name="query",
        similarity_fn_name="cosine",
        max_active_dims=50,
    )
    encoder.max_seq_length = 17
    encoder.save_pretrained(tmp_path / "out")
    settings = read_settings(tmp_path / "out")
    assert settings.document == SpladeWay(tmp_path / "out", "sum", "relu", max_seq_length=17)
    assert settings.prompts == prompts and settings.default_prompt_name == "query"
    assert settings.similarity_fn_name == "cosine" and settings.max_active_dims == 50
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    source = json.loads((GOLDEN / "bert-untied" / "config.json").read_text())
    assert config == source | {"dtype": "float32", "torch_dtype": "float32"}
    for name in ("tokenizer.json",):
        assert (tmp_path / "out" / name).read_bytes() == (GOLDEN / "bert" / name).read_bytes()
    assert not (tmp_path / "out" / "expected.safetensors").exists()


def test_a_folder_can_be_written_over_itself(tmp_path: Path) -> None:
    SparseEncoder(GOLDEN / "bert").save_pretrained(tmp_path)
    expected = SparseEncoder(tmp_path).encode(TEXTS)
    for _ in range(2):
        SparseEncoder(tmp_path).save_pretrained(tmp_path)
    assert SparseEncoder(tmp_path).encode(TEXTS) == expected


@pytest.mark.parametrize("name", ["bert", "modernbert", "gte", "albert", "xlm-roberta"])
def test_weights_have_the_names_and_shapes_that_they_came_with(tmp_path: Path, name: str) -> None:
    encoder = SparseEncoder(GOLDEN / name)
    encoder.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert set(encoder.model.stored_weights()) == set(stored)
    again = SparseEncoder(tmp_path).model.params
    assert again.keys() == encoder.model.params.keys()
    for key, weight in encoder.model.params.items():
        np.testing.assert_array_equal(again[key], weight)


def test_half_precision(tmp_path: Path) -> None:
    encoder = SparseEncoder(GOLDEN / "bert")
    encoder.save_pretrained(tmp_path, float16=True)
    stored = load_file(tmp_path / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float16)}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    gap = np.abs(SparseEncoder(tmp_path).encode(TEXTS).toarray() - encoder.encode(TEXTS).toarray())
    assert 0 < gap.max() < 0.02


def test_a_tokenizer_that_was_built_is_written(tmp_path: Path) -> None:
    encoder = SparseEncoder(GOLDEN / "roberta")
    encoder.encode(TEXTS)  # leaves a truncation that must not be written
    encoder.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["truncation"] is None
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["cls_token"] == "<s>" and config["pad_token"] == "<pad>"
    assert config["model_max_length"] == 40
    assert SparseEncoder(tmp_path).encode(TEXTS) == encoder.encode(TEXTS)


def test_lower_case_is_written_into_the_tokenizer(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ROWS["any RoBERTa with vocab.json and merges.txt"](source)
    (source / "sentence_roberta_config.json").write_text('{"do_lower_case": true}')
    encoder = SparseEncoder(source)
    assert encoder.encode("THE CAT") == encoder.encode("the cat")
    encoder.save_pretrained(tmp_path / "saved")
    again = SparseEncoder(tmp_path / "saved")
    assert again.encode("THE CAT") == encoder.encode("the cat")


def test_routes_of_their_own(tmp_path: Path) -> None:
    ROWS["naver/efficient-splade-V-large-doc"](tmp_path / "source")
    SparseEncoder(tmp_path / "source").save_pretrained(tmp_path / "saved")
    router: dict[str, Any] = json.loads((tmp_path / "saved" / "router_config.json").read_text())
    assert router["structure"] == {
        "query": ["query_0_MLMTransformer", "query_1_SpladePooling"],
        "document": ["document_0_MLMTransformer", "document_1_SpladePooling"],
    }
    assert not (tmp_path / "saved" / "config.json").exists()
    again = SparseEncoder(tmp_path / "saved")
    assert again.document_route.num_terms == again.query_route.num_terms
    assert again.query_route is not again.document_route
