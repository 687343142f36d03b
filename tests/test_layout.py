"""The sentence-transformers layout: what a model folder says beyond its weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from minisplade.errors import CheckpointError
from minisplade.layout import Settings, SpladeWay, StaticWay, TokenWay, Way, read_settings

POOLING = {"pooling_strategy": "max", "activation_function": "relu"}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Write JSON files; 1_SpladePooling/config.json and so on go into their own folders."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def splade(folder: Path) -> SpladeWay:
    """Return the one way of a folder without routes."""
    settings = read_settings(folder)
    assert settings.query is settings.document
    assert isinstance(settings.document, SpladeWay)
    return settings.document


def modules(*types: str, pooling_path: str = "1_SpladePooling", path: str = "") -> Any:
    places = [path, pooling_path, "2_Other"]
    return [
        {"idx": i, "name": str(i), "path": places[i], "type": kind} for i, kind in enumerate(types)
    ]


def test_a_plain_checkpoint_has_the_defaults(tmp_path: Path) -> None:
    way = SpladeWay(tmp_path, "max", "relu", max_seq_length=None, lower_case=False)
    assert read_settings(tmp_path) == Settings(
        document=way,
        query=way,
        default_task="document",
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
    way = splade(write(tmp_path, files))
    assert (way.folder, way.strategy, way.activation) == (tmp_path, "sum", "log1p_relu")


def test_the_transformer_may_have_a_subfolder(tmp_path: Path) -> None:
    files = {
        "modules.json": modules("Transformer", "SpladePooling", path="0_Transformer"),
        "1_SpladePooling/config.json": POOLING,
        "0_Transformer/sentence_bert_config.json": {"max_seq_length": 99},
    }
    way = splade(write(tmp_path, files))
    assert (way.folder, way.max_seq_length) == (tmp_path / "0_Transformer", 99)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (modules("x.Router"), "config.json does not exist"),
        (modules("x.CSRSparsity"), "lists CSRSparsity; supported are a Transformer followed by Sp"),
        (modules("x.Transformer", "x.Pooling"), "lists Transformer, Pooling; supported"),
        (modules("x.Transformer"), "lists Transformer; supported"),
        (modules("x.SpladePooling", "x.Transformer"), "lists SpladePooling, Transformer"),
        (modules("Transformer", "SpladePooling", "Normalize"), "SpladePooling, Normalize; supp"),
        ([], "lists nothing; supported"),
        (modules("Transformer", "SpladePooling", path="../up"), "keeps a part in '../up'"),
        (modules("Transformer", "SpladePooling", pooling_path="../up"), "keeps a part in '../up'"),
        (modules("Transformer", "SpladePooling", pooling_path="/up"), "keeps a part in '/up'"),
        (modules("Transformer", "SpladePooling", pooling_path=".."), r"keeps a part in '\.\.'"),
        (modules("Transformer", "SpladePooling", pooling_path="gone"), "config.json does not ex"),
        ({"type": "Transformer"}, "is not a list of modules"),
        (5, "is not a list of modules"),
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
    assert splade(write(tmp_path, files)).max_seq_length == expected


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"]
)
def test_the_transformers_config_has_had_many_names(tmp_path: Path, name: str) -> None:
    config = {"max_seq_length": 44, "do_lower_case": True}
    way = splade(write(tmp_path, {f"sentence_{name}_config.json": config}))
    assert (way.max_seq_length, way.lower_case) == (44, True)


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


STATIC = "query_0_SparseStaticEmbedding"


def router(query: list[str], document: list[str], **parameters: Any) -> dict[str, Any]:
    """Return the files of a router whose steps are called as sentence-transformers calls them."""
    package = "sentence_transformers.sparse_encoder.models"
    structure = {
        route: [f"{route}_{i}_{kind}" for i, kind in enumerate(kinds)]
        for route, kinds in (("query", query), ("document", document))
    }
    names = [name for steps in structure.values() for name in steps]
    types = {name: f"{package}.{name.rpartition('_')[2]}" for name in names}
    config = {"types": types, "structure": structure, "parameters": parameters}
    poolings = {f"{name}/config.json": POOLING for name in names if name.endswith("Pooling")}
    return {"modules.json": modules("x.Router"), "router_config.json": config, **poolings}


MLM = ["MLMTransformer", "SpladePooling"]


def test_a_router_with_static_queries(tmp_path: Path) -> None:
    files = router(["SparseStaticEmbedding"], MLM, default_route="document")
    files |= {
        "document_0_MLMTransformer/config.json": {},
        f"{STATIC}/model.safetensors": {},
        f"{STATIC}/tokenizer.json": {},
        f"{STATIC}/tokenizer_config.json": {"model_max_length": 64},
    }
    settings = read_settings(write(tmp_path, files))
    home = tmp_path / STATIC
    assert settings.query == StaticWay(home, home / "model.safetensors", 64)
    assert settings.document == SpladeWay(tmp_path / "document_0_MLMTransformer")
    assert settings.default_task == "document"


def test_a_router_whose_document_model_is_at_the_root(tmp_path: Path) -> None:
    files = router(["IDF"], MLM) | {"config.json": {}, "idf.json": {}, "vocab.txt": ""}
    files["query_0_IDF/config.json"] = {"frozen": True, "path": "idf.json"}
    settings = read_settings(write(tmp_path, files))
    assert settings.document == SpladeWay(tmp_path)
    assert settings.query == StaticWay(tmp_path, tmp_path / "idf.json")
    assert settings.default_task == "query"  # the first route, as no other is named
    empty_id = files["router_config.json"]
    empty_id["structure"]["document"][0] = ""
    empty_id["types"][""] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    assert read_settings(write(tmp_path, files)) == settings


def test_a_router_between_two_transformers_and_one_that_restricts_queries(tmp_path: Path) -> None:
    files = router([*MLM, "SparseStaticEmbedding"], MLM) | {"config.json": {}}
    files |= {
        "query_0_MLMTransformer/config.json": {},
        "query_2_SparseStaticEmbedding/pytorch_model.bin": {},
    }
    settings = read_settings(write(tmp_path, files))
    assert settings.document == SpladeWay(tmp_path)
    static = StaticWay(tmp_path, tmp_path / "query_2_SparseStaticEmbedding" / "pytorch_model.bin")
    home = tmp_path / "query_0_MLMTransformer"
    assert settings.query == SpladeWay(home, restriction=static)


@pytest.mark.parametrize("table", ["idf.json", "query_token_weights.txt"])
def test_a_table_of_token_weights_beside_a_plain_model_is_for_queries(
    tmp_path: Path, table: str
) -> None:
    settings = read_settings(write(tmp_path, {table: {}, "config.json": {}}))
    assert settings.query == StaticWay(tmp_path, tmp_path / table)
    assert settings.document == SpladeWay(tmp_path)


@pytest.mark.parametrize("steps", [None, modules("Transformer", "Pooling", "Normalize")])
def test_a_layer_that_weighs_tokens(tmp_path: Path, steps: Any) -> None:
    files: dict[str, Any] = {"sparse_linear.pt": {}, "config.json": {}}
    files |= {"modules.json": steps} if steps else {}
    expected: Way = TokenWay(tmp_path, tmp_path / "sparse_linear.pt")
    settings = read_settings(write(tmp_path, files))
    assert settings.document == settings.query == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"structure": {"query": [f"{STATIC}"]}}, "has the routes query; expected query and docu"),
        ({"structure": {}}, "has the routes nothing"),
        ({"structure": []}, "structure is .*expected dict"),
        ({"structure": {"query": "x"}}, "a route 'query' of steps that types do not list"),
        ({"structure": {"query": ["x"]}}, "a route 'query' of steps that types do not list"),
        ({"structure": {"query": [5]}}, "a route 'query' of steps that types do not list"),
        ({"types": {}}, "a route 'query' of steps that types do not list"),
        ({"parameters": {"default_route": "image"}}, "has the default route 'image'"),
        ({"parameters": {"route_mappings": {"('query', None)": "a"}}}, "has route_mappings"),
        ({"types": {"../x": "Transformer"}, "structure": {"query": ["../x"]}}, "a part in '../x'"),
    ],
)
def test_routers_that_are_not_supported(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    files = router(["SparseStaticEmbedding"], MLM) | {"config.json": {}, f"{STATIC}/idf.json": {}}
    read_settings(write(tmp_path, files))
    files["router_config.json"] |= change
    with pytest.raises(CheckpointError, match=expected):
        read_settings(write(tmp_path, files))


def test_a_static_embedding_without_weights(tmp_path: Path) -> None:
    files = router(["SparseStaticEmbedding"], MLM) | {"config.json": {}}
    with pytest.raises(CheckpointError, match=f"{STATIC} has no weights for tokens: none of"):
        read_settings(write(tmp_path, files))
