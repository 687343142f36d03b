"""What checkpoints call their settings and weights, as tables, and the reading of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minisplade.arrays import Params
from minisplade.checkpoint import Checkpoint
from minisplade.errors import CheckpointError
from minisplade.models import bert, heads
from minisplade.models.bert import BertConfig


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of checkpoints: where its config and weights keep what BertConfig needs."""

    class_name: str  # as config.json lists it under "architectures"
    settings: Mapping[str, str]  # field of BertConfig -> key of config.json
    fixed: Mapping[str, Any]  # fields of BertConfig that config.json does not hold
    activation: str  # key of config.json
    weights: Mapping[str, str]  # our prefix -> prefix in the file; {i} is the layer


ARCHITECTURES = {
    "bert": Architecture(
        class_name="BertForMaskedLM",
        settings={
            "vocab_size": "vocab_size",
            "hidden_size": "hidden_size",
            "num_layers": "num_hidden_layers",
            "num_heads": "num_attention_heads",
            "intermediate_size": "intermediate_size",
            "max_positions": "max_position_embeddings",
            "num_token_types": "type_vocab_size",
            "layer_norm_eps": "layer_norm_eps",
        },
        fixed={},
        activation="hidden_act",
        weights={
            "embeddings.word": "bert.embeddings.word_embeddings",
            "embeddings.position": "bert.embeddings.position_embeddings",
            "embeddings.token_type": "bert.embeddings.token_type_embeddings",
            "embeddings.norm": "bert.embeddings.LayerNorm",
            "layers.{i}.attention.query": "bert.encoder.layer.{i}.attention.self.query",
            "layers.{i}.attention.key": "bert.encoder.layer.{i}.attention.self.key",
            "layers.{i}.attention.value": "bert.encoder.layer.{i}.attention.self.value",
            "layers.{i}.attention.output": "bert.encoder.layer.{i}.attention.output.dense",
            "layers.{i}.attention_norm": "bert.encoder.layer.{i}.attention.output.LayerNorm",
            "layers.{i}.feed_forward.up": "bert.encoder.layer.{i}.intermediate.dense",
            "layers.{i}.feed_forward.down": "bert.encoder.layer.{i}.output.dense",
            "layers.{i}.feed_forward_norm": "bert.encoder.layer.{i}.output.LayerNorm",
            "head.transform": "cls.predictions.transform.dense",
            "head.norm": "cls.predictions.transform.LayerNorm",
            "head.decoder": "cls.predictions.decoder",
        },
    ),
    "distilbert": Architecture(
        class_name="DistilBertForMaskedLM",
        settings={
            "vocab_size": "vocab_size",
            "hidden_size": "dim",
            "num_layers": "n_layers",
            "num_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "max_positions": "max_position_embeddings",
        },
        fixed={"num_token_types": 0, "layer_norm_eps": 1e-12},
        activation="activation",
        weights={
            "embeddings.word": "distilbert.embeddings.word_embeddings",
            "embeddings.position": "distilbert.embeddings.position_embeddings",
            "embeddings.norm": "distilbert.embeddings.LayerNorm",
            "layers.{i}.attention.query": "distilbert.transformer.layer.{i}.attention.q_lin",
            "layers.{i}.attention.key": "distilbert.transformer.layer.{i}.attention.k_lin",
            "layers.{i}.attention.value": "distilbert.transformer.layer.{i}.attention.v_lin",
            "layers.{i}.attention.output": "distilbert.transformer.layer.{i}.attention.out_lin",
            "layers.{i}.attention_norm": "distilbert.transformer.layer.{i}.sa_layer_norm",
            "layers.{i}.feed_forward.up": "distilbert.transformer.layer.{i}.ffn.lin1",
            "layers.{i}.feed_forward.down": "distilbert.transformer.layer.{i}.ffn.lin2",
            "layers.{i}.feed_forward_norm": "distilbert.transformer.layer.{i}.output_layer_norm",
            "head.transform": "vocab_transform",
            "head.norm": "vocab_layer_norm",
            "head.decoder": "vocab_projector",
        },
    ),
}

# BERT files may keep the decoder's bias under its older name as well as, or instead of, this one.
DECODER_BIAS_ALIASES = {"cls.predictions.decoder.bias": "cls.predictions.bias"}

# Older files leave these out of config.json.
DEFAULTS = {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0}


def read_config(raw: Mapping[str, Any]) -> BertConfig:
    """Translate config.json; raises CheckpointError for what is not supported."""
    architecture = find_architecture(raw)
    known = {**DEFAULTS, **{key: value for key, value in raw.items() if value is not None}}
    missing = sorted(key for key in architecture.settings.values() if key not in known)
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}")
    fields = {field: known[key] for field, key in architecture.settings.items()}
    fields |= {**architecture.fixed, "pad_token_id": known["pad_token_id"]}
    for field, value in fields.items():
        kinds = (int, float) if field == "layer_norm_eps" else (int,)
        if type(value) not in kinds or not 0 <= value < 1 << 31:
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise CheckpointError(
                f"config.json gives {field} as {value!r}; expected {wanted}, 0 or more"
            )
    config = BertConfig(**fields)
    if config.num_heads < 1 or config.hidden_size % config.num_heads:
        raise CheckpointError(
            f"hidden size {config.hidden_size} cannot be split into {config.num_heads} heads"
        )
    return config


def find_architecture(raw: Mapping[str, Any]) -> Architecture:
    """Return the table for config.json's model_type; raises CheckpointError if there is none."""
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"model_type {model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    architecture = ARCHITECTURES[model_type]
    names = raw.get("architectures") or [architecture.class_name]
    if not isinstance(names, list) or architecture.class_name not in names:
        raise CheckpointError(
            f"config.json is of architectures {names!r}; SPLADE needs the masked-language-model "
            f"head of a {architecture.class_name}"
        )
    supported = {
        architecture.activation: "gelu",
        "position_embedding_type": "absolute",
        "is_decoder": False,
    }
    for key, value in supported.items():
        if raw.get(key, value) != value:
            raise CheckpointError(f"config.json has {key} {raw[key]!r}; supported is {value!r}")
    return architecture


def read_params(checkpoint: Checkpoint, raw: Mapping[str, Any], config: BertConfig) -> Params:
    """Collect every weight under our name; raises CheckpointError, naming the tensor at fault."""
    architecture = find_architecture(raw)
    params: Params = {}
    for name, shape in param_shapes(config).items():
        stored = stored_name(architecture, name)
        if stored not in checkpoint:
            stored = DECODER_BIAS_ALIASES.get(stored, stored)
        if name == "head.decoder.weight":
            word = stored_name(architecture, "embeddings.word.weight")
            absent = stored not in checkpoint and raw.get("tie_word_embeddings", True)
            if absent or checkpoint.is_same(stored, word):
                params[name] = params["embeddings.word.weight"]
                continue
        params[name] = checkpoint.weight(stored, shape)
    return params


def param_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of encoder and head."""
    return bert.param_shapes(config) | heads.param_shapes(config)


def stored_name(architecture: Architecture, name: str) -> str:
    """Translate one of our weight names into the checkpoint's."""
    prefix, _, kind = name.rpartition(".")
    parts = prefix.split(".")
    if parts[0] != "layers":
        return f"{architecture.weights[prefix]}.{kind}"
    layer, parts[1] = parts[1], "{i}"
    return f"{architecture.weights['.'.join(parts)]}.{kind}".replace("{i}", layer)
