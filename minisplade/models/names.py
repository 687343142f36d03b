"""Reading and writing checkpoints by the tables of architectures.py: settings, then weights."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from minisplade.arrays import FloatArray, Params
from minisplade.checkpoint import Checkpoint
from minisplade.errors import CheckpointError
from minisplade.models import bert, heads
from minisplade.models.architectures import (
    ARCHITECTURES,
    BIAS_ALIASES,
    Architecture,
    Part,
    whole,
)
from minisplade.models.bert import BertConfig

Purpose = Literal["mlm", "class", "encoder"]
"""What a checkpoint is to be used for: logits of terms, scores of pairs, or hidden states."""

MAX_LAYERS = 1000


def read_config(raw: Mapping[str, Any], purpose: Purpose = "mlm") -> BertConfig:
    """Translate config.json; raises CheckpointError for what is not supported."""
    architecture = find_architecture(raw, purpose)
    given = {key: value for key, value in raw.items() if value is not None}
    known = {**architecture.defaults, **given}
    missing = sorted(key for key in architecture.settings.values() if key not in known)
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}")
    fields = {field: known[key] for field, key in architecture.settings.items()}
    fields |= {**architecture.fixed, "pad_token_id": known["pad_token_id"]}
    for field, value in fields.items():
        kinds = (int, float) if field == "layer_norm_eps" else (int,)
        if field not in architecture.fixed and (
            type(value) not in kinds or not 0 <= value < 1 << 31
        ):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise CheckpointError(
                f"config.json gives {field} as {value!r}; expected {wanted}, 0 or more"
            )
    if fields["num_layers"] > MAX_LAYERS:
        raise CheckpointError(f"config.json gives num_layers as {fields['num_layers']}; too many")
    config = BertConfig(**fields | architecture.derive(known))
    if config.num_heads < 1 or config.hidden_size % config.num_heads:
        raise CheckpointError(
            f"hidden size {config.hidden_size} cannot be split into {config.num_heads} heads"
        )
    if config.rotary_bases and config.hidden_size // config.num_heads % 2:
        raise CheckpointError("heads of an odd size cannot have rotary positions")
    return config


def find_architecture(raw: Mapping[str, Any], purpose: Purpose = "mlm") -> Architecture:
    """Return the table for config.json's model_type; raises CheckpointError if there is none."""
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"model_type {model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[model_type]
    names = raw.get("architectures") or []
    if not isinstance(names, list):
        raise CheckpointError(f"config.json is of architectures {names!r}; expected a list")
    wanted = {"mlm": architecture.mlm_class, "class": architecture.class_class}.get(purpose)
    if purpose == "class" and (wanted is None or wanted not in names):
        raise CheckpointError(
            f"config.json is of architectures {names!r}; a cross-encoder needs the classification "
            f"head of a {wanted or 'BertForSequenceClassification or similar'}"
        )
    if purpose == "mlm" and names and wanted not in names:
        raise CheckpointError(
            f"config.json is of architectures {names!r}; SPLADE needs the masked-language-model "
            f"head of a {wanted}"
        )
    for key, value in architecture.required.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"config.json has {key} {raw[key]!r}; supported is {value!r}")
    return architecture


def classifies(raw: Mapping[str, Any]) -> bool:
    """Tell whether config.json is that of a model with a classification head, known or not."""
    names = raw.get("architectures")
    return isinstance(names, list) and any(
        str(name).endswith("ForSequenceClassification") for name in names
    )


def num_classes(raw: Mapping[str, Any]) -> int:
    """Return how many scores a classification head gives; raises CheckpointError."""
    labels = raw.get("id2label")
    if isinstance(labels, dict):
        return len(labels)
    return whole({"num_labels": 2, **raw}, "num_labels")


def param_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of a masked language model."""
    return bert.param_shapes(config) | heads.mlm_shapes(config)


def read_params(
    checkpoint: Checkpoint,
    raw: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    purpose: Purpose = "mlm",
) -> Params:
    """Collect weights under our names; raises CheckpointError, naming the tensor at fault."""
    architecture = find_architecture(raw, purpose)
    parts: dict[str, FloatArray] = {}  # what several of our weights are cut from
    params: Params = {}
    for name, shape in shapes.items():
        stored = _find(architecture, checkpoint, name)
        if name == "head.decoder.weight":
            word = _find(architecture, checkpoint, "embeddings.word.weight").name
            absent = stored.name not in checkpoint and raw.get("tie_word_embeddings", True)
            if absent or checkpoint.is_same(stored.name, word):
                params[name] = params["embeddings.word.weight"]
                continue
        if stored.name not in parts:
            whole_shape = (shape[0] * stored.count, *shape[1:])
            weight = checkpoint.weight(stored.name, whole_shape)
            if stored.count > 1:
                parts[stored.name] = weight
        else:
            weight = parts[stored.name]
        start = shape[0] * stored.index
        params[name] = weight[start : start + shape[0]] if stored.count > 1 else weight
    return params


def unused_tensors(
    architecture: Architecture, checkpoint: Checkpoint, shapes: Iterable[str]
) -> list[str]:
    """Return the names of the tensors of a file that no weight is read from."""
    used = {_find(architecture, checkpoint, name).name for name in shapes}
    return sorted(set(checkpoint.tensors) - used)


def stored_weights(params: Params, raw: Mapping[str, Any], purpose: Purpose = "mlm") -> Params:
    """Return weights under the names of the checkpoint, a tied decoder only once."""
    architecture = find_architecture(raw, purpose)
    word, decoder = params["embeddings.word.weight"], params.get("head.decoder.weight")
    pieces: dict[str, list[FloatArray]] = {}
    stored = {
        name: stored_name(architecture, name)
        for name in params
        if name != "head.decoder.weight" or decoder is not word
    }
    for name, part in sorted(stored.items(), key=lambda item: item[1].index):
        pieces.setdefault(part.name, []).append(params[name])
    return {
        name: np.concatenate(found) if found[1:] else found[0] for name, found in pieces.items()
    }


def stored_name(architecture: Architecture, name: str) -> Part:
    """Translate one of our weight names into the checkpoint's."""
    prefix, _, kind = name.rpartition(".")
    parts = prefix.split(".")
    layer = ""
    if parts[0] == "layers":
        layer, parts[1] = parts[1], "{i}"
    weights = {**architecture.weights, **architecture.class_weights}
    place = weights[".".join(parts)]
    part = place if isinstance(place, Part) else Part(place)
    return replace(part, name=f"{part.name}.{kind}".replace("{i}", layer))


def _find(architecture: Architecture, checkpoint: Checkpoint, name: str) -> Part:
    """Return the name that a weight has in this file, or would have."""
    part = stored_name(architecture, name)
    bare = part.name.removeprefix(architecture.prefix)
    for candidate in (part.name, BIAS_ALIASES.get(part.name, part.name), bare):
        if candidate in checkpoint:
            return replace(part, name=candidate)
    return replace(part, name=BIAS_ALIASES.get(part.name, part.name))
