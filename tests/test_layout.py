"""The sentence-transformers layout: what a model folder says beyond its weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from minisplade.errors import CheckpointError
from minisplade.layout import Settings, read_settings, write_folder

POOLING = {"pooling_strategy": "max", "activation_function": "relu"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write JSON files; 1_SpladePooling/config.json and so on go into their own folders."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def modules(*types: str, pooling_path: str = "1_SpladePooling", path: str = "") -> Any:
    places = [path, pooling_path, "2_Other"]
    return [
        {"idx": i, "name": str(i), "path": places[i], "type": kind} for i, kind in enumerate(types)
    ]


def test_a_plain_checkpoint_has_the_defaults(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == Settings(
        strategy="max",
        activation="relu",
        max_seq_length=None,
        max_active_dims=None,
        similarity_fn_name="dot",
        prompts={},
        default_prompt_name=None,
    )


@pytest.mark.parametrize(
    "prefix",
    [
        "sentence_transformers.models.",
        "sentence_transformers.sparse_encoder.models.",
        "sentence_transformers.sparse_encoder.models.{}.",
        "sentence_transformers.sparse_encoder.modules.x.",
        "",
    ],
)
@pytest.mark.parametrize("transformer", ["Transformer", "MLMTransformer"])
@pytest.mark.parametrize("dimension", ["word_embedding_dimension", "embedding_dimension"])
def test_class_names_of_all_years(
    tmp_path: Path, prefix: str, transformer: str, dimension: str
) -> None:
    kinds = [prefix.format(kind) + kind for kind in (transformer, "SpladePooling")]
    pooling = {"pooling_strategy": "sum", "activation_function": "log1p_relu", dimension: 30522}
    files = {"modules.json": modules(*kinds), "1_SpladePooling/config.json": pooling}
    settings = read_settings(write(tmp_path, files))
    assert (settings.strategy, settings.activation) == ("sum", "log1p_relu")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (modules("x.Router"), "lists Router; supported is a Transformer followed by SpladePooling"),
        (modules("x.Transformer", "x.Pooling"), "lists Transformer, Pooling; supported"),
        (modules("x.Transformer"), "lists Transformer; supported"),
        (modules("x.SpladePooling", "x.Transformer"), "lists SpladePooling, Transformer"),
        (modules("Transformer", "SpladePooling", "Normalize"), "SpladePooling, Normalize; supp"),
        ([], "lists nothing; supported"),
        (modules("Transformer", "SpladePooling", path="0_T"), "keeps the transformer in '0_T'"),
        (modules("Transformer", "SpladePooling", pooling_path="../up"), "the pooling in '../up'"),
        (modules("Transformer", "SpladePooling", pooling_path="/up"), "the pooling in '/up'"),
        (modules("Transformer", "SpladePooling", pooling_path=""), "the pooling in ''"),
        (modules("Transformer", "SpladePooling", pooling_path="gone"), "config.json does not ex"),
        ({"type": "Transformer"}, "is not a list of modules"),
        ([{"path": ""}], "is not a list of modules"),
        (["Transformer"], "is not a list of modules"),
        (None, "is not a list of modules"),
    ],
)
def test_pipelines_that_are_not_supported(tmp_path: Path, content: Any, expected: str) -> None:
    folder = write(tmp_path / "model", {"modules.json": content})
    write(tmp_path, {"up/config.json": POOLING})
    with pytest.raises(CheckpointError, match=expected):
        read_settings(folder)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"tokenizer_config.json": {"model_max_length": 512}}, 512),
        ({"tokenizer_config.json": {"model_max_length": int(1e30)}}, None),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, None),
        ({"tokenizer_config.json": {"model_max_length": float("inf")}}, None),
        ({"sentence_bert_config.json": {"max_seq_length": 256}}, 256),
        ({"sentence_bert_config.json": {"max_seq_length": 256.0}}, 256),
        ({"sentence_bert_config.json": {"max_seq_length": None}}, None),
        (
            {
                "sentence_bert_config.json": {"max_seq_length": 256},
                "tokenizer_config.json": {"model_max_length": 512},
            },
            256,
        ),
        (
            {
                "sentence_bert_config.json": {"max_seq_length": None},
                "tokenizer_config.json": {"model_max_length": 512},
            },
            512,
        ),
    ],
)
def test_where_the_length_comes_from(
    tmp_path: Path, files: dict[str, Any], expected: int | None
) -> None:
    assert read_settings(write(tmp_path, files)).max_seq_length == expected


def test_prompts_and_the_rest(tmp_path: Path) -> None:
    general = {
        "prompts": {"query": "query: ", "document": "", "none": None},
        "default_prompt_name": "query",
        "similarity_fn_name": "cosine",
        "max_active_dims": 64,
    }
    settings = read_settings(write(tmp_path, {"config_sentence_transformers.json": general}))
    assert settings.prompts == {"query": "query: ", "document": "", "none": ""}
    assert settings.default_prompt_name == "query"
    assert settings.similarity_fn_name == "cosine"
    assert settings.max_active_dims == 64


GENERAL = "config_sentence_transformers.json"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (GENERAL, {"prompts": ["query"]}, "prompts is .*expected dict"),
        (GENERAL, {"prompts": {"query": 5}}, "query is 5; expected str"),
        (GENERAL, {"default_prompt_name": 5}, "default_prompt_name is 5; expected str"),
        (GENERAL, {"similarity_fn_name": []}, "similarity_fn_name is .*; expected str"),
        (GENERAL, {"max_active_dims": "64"}, "max_active_dims is '64'; expected a whole number"),
        (GENERAL, {"max_active_dims": 0}, "max_active_dims is 0; expected a whole number above 0"),
        (GENERAL, [], "holds a list; expected a JSON object"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length is -1; expected"),
        ("sentence_bert_config.json", {"max_seq_length": True}, "max_seq_length is True; expected"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "model_max_length is 'long'; exp"),
        ("tokenizer_config.json", {"model_max_length": float("nan")}, "model_max_length is nan"),
    ],
)
def test_settings_of_the_wrong_kind(tmp_path: Path, name: str, content: Any, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        read_settings(write(tmp_path, {name: content}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pooling_strategy": "mean"}, "pooling_strategy is 'mean'; supported: "),
        ({"activation_function": "gelu"}, "activation_function is 'gelu'; supported: "),
        ({"activation_function": None}, "activation_function is None; supported: "),
    ],
)
def test_pooling_that_is_not_supported(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    files = {
        "modules.json": modules("Transformer", "SpladePooling"),
        "1_SpladePooling/config.json": POOLING | change,
    }
    with pytest.raises(CheckpointError, match=expected):
        read_settings(write(tmp_path, files))


SETTINGS = Settings("sum", "log1p_relu", 77, 50, "cosine", {"query": "q: ", "a": "é"}, "query")


def test_a_written_folder_says_the_same(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"tokenizer.json": {"model": 1}, "README.md": "no"})
    weights = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    config = {"vocab_size": 6, "model_type": "bert", "torch_dtype": "float16"}
    write_folder(tmp_path / "out", source, SETTINGS, config, weights)
    assert read_settings(tmp_path / "out") == SETTINGS
    stored = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(stored["a.weight"], weights["a.weight"])
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written == config | {"dtype": "float32", "torch_dtype": "float32"}
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"model": 1}'
    assert not (tmp_path / "out" / "README.md").exists()


def test_a_folder_can_be_written_over_itself(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", {"tokenizer.json": {"model": 1}})
    weights = {"a": np.ones(3, np.float32)}
    for settings in (SETTINGS, Settings()):
        write_folder(folder, folder, settings, {"vocab_size": 6}, weights)
    assert read_settings(folder) == Settings()
    assert (folder / "tokenizer.json").read_text() == '{"model": 1}'
