"""Writing a model folder in the layout of sentence-transformers, which layout.py reads."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer

from minisplade.arrays import FloatArray
from minisplade.checkpoint import WEIGHTS
from minisplade.files import replacing
from minisplade.layout import Settings, StaticWay, read_optional
from minisplade.models import MaskedLanguageModel, PairClassifier, TokenWeigher
from minisplade.routes import NO_LIMIT, Route, SpladeRoute, StaticRoute, TokenRoute
from minisplade.vocabularies import BYTE_PAIR_TOKENS, WORD_PIECE_TOKENS

TOKENIZER_COPIES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

PREFIX = "sentence_transformers.sparse_encoder.models"
MLM, POOLING, STATIC = "MLMTransformer", "SpladePooling", "SparseStaticEmbedding"
ROUTER_CLASS = "sentence_transformers.models.Router"


def write_folder(
    folder: Path, settings: Settings, document: Route, query: Route, float16: bool = False
) -> None:
    """Write a model that sentence-transformers and minisplade load.

    document, query: the same object where queries are not encoded in a way of their own. float16:
    round weights to half precision. A TokenRoute's folder is a plain one, with sparse_linear beside
    it, because sentence-transformers has no name for that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = "float16" if float16 else "float32"
    if document is not query:
        _write_router(folder, settings, document, query, dtype)
    elif isinstance(document, TokenRoute):
        _write_transformer(folder, document, dtype)
        layer = {name: document.model.params[f"sparse.{name}"] for name in ("weight", "bias")}
        _write_weights(folder / "sparse_linear.safetensors", layer, dtype)
    else:
        places = {MLM: "", STATIC: "" if isinstance(document, StaticRoute) else f"2_{STATIC}"}
        places[POOLING] = f"1_{POOLING}"
        kinds = _write_steps(folder, document, places, dtype)
        modules = [
            {"idx": i, "name": str(i), "path": places[kind], "type": f"{PREFIX}.{kind}"}
            for i, kind in enumerate(kinds)
        ]
        _write_json(folder / "modules.json", modules)
    general = {
        "model_type": "SparseEncoder",
        "prompts": dict(settings.prompts),
        "default_prompt_name": settings.default_prompt_name,
        "similarity_fn_name": settings.similarity_fn_name,
        "max_active_dims": settings.max_active_dims,
    }
    _write_json(folder / "config_sentence_transformers.json", general)


def _write_router(
    folder: Path, settings: Settings, document: Route, query: Route, dtype: str
) -> None:
    """Write the steps of both routes into folders of their own, and what joins them."""
    types: dict[str, str] = {}
    structure: dict[str, list[str]] = {}
    for name, route in (("query", query), ("document", document)):
        kinds = _kinds(route)
        places = {kind: f"{name}_{i}_{kind}" for i, kind in enumerate(kinds)}
        _write_steps(folder, route, places, dtype)
        structure[name] = list(places.values())
        types |= {place: f"{PREFIX}.{kind}" for kind, place in places.items()}
    parameters = {"default_route": settings.default_task, "allow_empty_key": True}
    router = {"types": types, "structure": structure, "parameters": parameters}
    _write_json(folder / "router_config.json", router)
    modules = [{"idx": 0, "name": "0", "path": "", "type": ROUTER_CLASS}]
    _write_json(folder / "modules.json", modules)


def _kinds(route: Route) -> list[str]:
    """Return the classes of a route's steps."""
    if isinstance(route, StaticRoute):
        return [STATIC]
    restricted = isinstance(route, SpladeRoute) and route.restriction is not None
    return [MLM, POOLING, STATIC] if restricted else [MLM, POOLING]


def _write_steps(folder: Path, route: Route, places: Mapping[str, str], dtype: str) -> list[str]:
    """Write the steps of a route into the given subfolders; return their classes."""
    if isinstance(route, StaticRoute):
        _write_static(folder / places[STATIC], route.way, route.tokenizer, route.token_weights)
    elif isinstance(route, SpladeRoute):
        _write_transformer(folder / places[MLM], route, dtype)
        pooling = {
            "pooling_strategy": route.way.strategy,
            "activation_function": route.way.activation,
            "word_embedding_dimension": route.num_terms,
        }
        _write_json(folder / places[POOLING] / "config.json", pooling)
        if route.restriction is not None and route.way.restriction is not None:
            own = folder / places[STATIC]
            _write_static(own, route.way.restriction, route.tokenizer, route.restriction)
    return _kinds(route)


def write_classifier(
    folder: Path,
    source: Path,
    model: PairClassifier,
    tokenizer: Tokenizer,
    max_length: int,
    float16: bool = False,
) -> None:
    """Write a cross-encoder; source is the folder whose tokenizer files are copied."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, source, tokenizer, max_length)
    _write_model(folder, model, "float16" if float16 else "float32")


def _write_transformer(folder: Path, route: SpladeRoute | TokenRoute, dtype: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lower_case = isinstance(route, SpladeRoute) and route.way.lower_case
    _write_tokenizer(folder, route.way.folder, route.tokenizer, route.max_seq_length, lower_case)
    _write_model(folder, route.model, dtype)
    own = {"max_seq_length": route.max_seq_length, "do_lower_case": False}
    _write_json(folder / "sentence_bert_config.json", own)


def _write_model(
    folder: Path, model: MaskedLanguageModel | TokenWeigher | PairClassifier, dtype: str
) -> None:
    _write_weights(folder / WEIGHTS, model.stored_weights(), dtype)
    config = {**model.raw_config, "dtype": dtype, "torch_dtype": dtype}
    _write_json(folder / "config.json", config)


def _write_static(folder: Path, way: StaticWay, tokenizer: Tokenizer, weights: FloatArray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, way.folder, tokenizer, way.max_seq_length or NO_LIMIT)
    # Always in float32: half the size of something small would not pay.
    _write_weights(folder / WEIGHTS, {"weight": weights}, "float32")
    _write_json(folder / "config.json", {"frozen": True})


def _write_tokenizer(
    folder: Path, source: Path, tokenizer: Tokenizer, max_seq_length: int, changed: bool = False
) -> None:
    """Copy the tokenizer's files, or write it where it was built from a vocabulary or changed."""
    copies = TOKENIZER_COPIES if folder.resolve() != source.resolve() else ()
    for name in copies:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    config = read_optional(source / "tokenizer_config.json")
    if changed or not (source / "tokenizer.json").is_file():
        tokenizer.no_truncation()
        with replacing(folder / "tokenizer.json") as file:
            file.write(tokenizer.to_str().encode())
        for usual in (BYTE_PAIR_TOKENS, WORD_PIECE_TOKENS):
            known = {n: t for n, t in usual.items() if tokenizer.token_to_id(t) is not None}
            config = {**known, **config}
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    config["model_max_length"] = max_seq_length
    _write_json(folder / "tokenizer_config.json", config)


def _write_weights(path: Path, weights: Mapping[str, FloatArray], dtype: str) -> None:
    arrays: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(weight.astype(dtype)) for name, weight in weights.items()
    }
    with replacing(path) as file:
        file.write(save(arrays, {"format": "pt"}))


def _write_json(path: Path, content: Any) -> None:
    with replacing(path) as file:
        file.write(json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Return JSON as it is written into the files of a model."""
    return (json.dumps(content, indent=2) + "\n").encode()
