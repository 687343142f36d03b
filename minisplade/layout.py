"""The sentence-transformers layout of a model folder, read and written.

modules.json lists the steps of a pipeline; for SPLADE a Transformer in the folder itself and a
SpladePooling in 1_SpladePooling/. A plain Hugging Face checkpoint has none of these files and gets
the defaults.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from minisplade.arrays import FloatArray
from minisplade.checkpoint import WEIGHTS, read_json
from minisplade.errors import CheckpointError
from minisplade.files import replacing
from minisplade.pooling import Activation, Strategy

TRANSFORMER_TYPES = ("Transformer", "MLMTransformer")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model wants to be used, beyond its weights."""

    strategy: Strategy = "max"
    activation: Activation = "relu"
    max_seq_length: int | None = None
    max_active_dims: int | None = None
    similarity_fn_name: str = "dot"
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


def read_settings(folder: Path) -> Settings:
    """Read what a folder says of pooling, prompts and lengths; raises CheckpointError."""
    pooling = _read_pooling(folder)
    general = _read_optional(folder / "config_sentence_transformers.json")
    transformer = _read_optional(folder / "sentence_bert_config.json")
    tokenizer = _read_optional(folder / "tokenizer_config.json")
    length = _number(transformer, "max_seq_length") or _number(tokenizer, "model_max_length")
    prompts = _typed(general, "prompts", dict) or {}
    return Settings(
        strategy=_choice(Strategy, pooling, "pooling_strategy", "max"),
        activation=_choice(Activation, pooling, "activation_function", "relu"),
        # A tokenizer without a limit of its own says 1e30.
        max_seq_length=length if length and length < 1 << 30 else None,
        max_active_dims=_number(general, "max_active_dims"),
        similarity_fn_name=_typed(general, "similarity_fn_name", str) or "dot",
        prompts={name: _typed(prompts, name, str) or "" for name in prompts},
        default_prompt_name=_typed(general, "default_prompt_name", str),
    )


def write_folder(
    folder: Path,
    source: Path,
    settings: Settings,
    config: Mapping[str, Any],
    weights: Mapping[str, FloatArray],
) -> None:
    """Write a model folder that sentence-transformers and minisplade load.

    source is the folder that the model came from; its tokenizer files are copied.
    """
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and folder.resolve() != source.resolve():
            shutil.copyfile(source / name, folder / name)
    with replacing(folder / WEIGHTS) as file:
        file.write(
            save({name: np.ascontiguousarray(w) for name, w in weights.items()}, {"format": "pt"})
        )
    (folder / "1_SpladePooling").mkdir(exist_ok=True)
    tokenizer_config = _read_optional(folder / "tokenizer_config.json")
    tokenizer_config.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
    tokenizer_config["model_max_length"] = settings.max_seq_length
    files: dict[str, Any] = {
        "config.json": {**config, "dtype": "float32", "torch_dtype": "float32"},
        "tokenizer_config.json": tokenizer_config,
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{_PREFIX}.MLMTransformer"},
            {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": f"{_PREFIX}.SpladePooling"},
        ],
        "1_SpladePooling/config.json": {
            "pooling_strategy": settings.strategy,
            "activation_function": settings.activation,
            "word_embedding_dimension": config["vocab_size"],
        },
        "sentence_bert_config.json": {
            "max_seq_length": settings.max_seq_length,
            "do_lower_case": False,
        },
        "config_sentence_transformers.json": {
            "model_type": "SparseEncoder",
            "prompts": dict(settings.prompts),
            "default_prompt_name": settings.default_prompt_name,
            "similarity_fn_name": settings.similarity_fn_name,
            "max_active_dims": settings.max_active_dims,
        },
    }
    for name, content in files.items():
        with replacing(folder / name) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


_PREFIX = "sentence_transformers.sparse_encoder.models"


def _read_pooling(folder: Path) -> dict[str, Any]:
    """Return the config of the SpladePooling step, {} for a plain checkpoint."""
    path = folder / "modules.json"
    if not path.is_file():
        return {}
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        # The package that a class lives in has changed over the years, its own name has not.
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        places = [str(module["path"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a list of modules: {error!r}") from error
    if len(kinds) != 2 or kinds[0] not in TRANSFORMER_TYPES or kinds[1] != "SpladePooling":
        raise CheckpointError(
            f"{path} lists {', '.join(kinds) or 'nothing'}; supported is a Transformer followed by "
            "SpladePooling"
        )
    if places[0]:
        raise CheckpointError(f"{path} keeps the transformer in {places[0]!r}; expected ''")
    if Path(places[1]).name != places[1] or places[1] in ("", ".."):
        raise CheckpointError(f"{path} keeps the pooling in {places[1]!r}; expected a subfolder")
    return read_json(folder / places[1] / "config.json")


def _read_optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _typed(config: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a value of the expected type, or None where there is none; raises CheckpointError."""
    value = config.get(key)
    if value is not None and not isinstance(value, kind):
        raise CheckpointError(f"{key} is {value!r}; expected {kind.__name__}")
    return value


def _number(config: Mapping[str, Any], key: str) -> int | None:
    """Return a positive whole number, which may be written as 512.0; raises CheckpointError."""
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        raise CheckpointError(f"{key} is {value!r}; expected a whole number above 0")
    return int(min(value, 1 << 62))  # 1e400 reads as infinity


def _choice(allowed: Any, config: Mapping[str, Any], key: str, default: str) -> Any:
    """Return one of the values that a Literal type allows; raises CheckpointError."""
    value = config.get(key, default)
    if value not in get_args(allowed):
        raise CheckpointError(f"{key} is {value!r}; supported: {', '.join(get_args(allowed))}")
    return cast(Any, value)
