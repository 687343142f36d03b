"""What each family of checkpoints calls its settings and weights: one table a family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minisplade.errors import CheckpointError
from minisplade.models.heads import Bend

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """One of some equal parts of a tensor, from top to bottom; most tensors are all of one."""

    name: str
    index: int = 0
    count: int = 1


def _nothing(raw: Raw) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of checkpoints: where its config and weights keep what BertConfig needs."""

    mlm_class: str  # as config.json lists it under "architectures"
    prefix: str  # of the encoder's tensors, which files of the bare encoder leave out
    settings: Mapping[str, str]  # field of BertConfig -> key of config.json
    fixed: Mapping[str, Any]  # fields of BertConfig that config.json does not hold
    required: Mapping[str, Any]  # keys of config.json that must have this value, if they are there
    weights: Mapping[str, str | Part]  # our prefix -> prefix in the file; {i} is the layer
    class_class: str | None = None  # the class with a classification head, if that is known
    class_weights: Mapping[str, str] = field(default_factory=dict)
    class_bend: Bend = "tanh"
    derive: Callable[[Raw], dict[str, Any]] = _nothing  # fields that several keys decide
    defaults: Mapping[str, Any] = field(default_factory=dict)  # keys that older files leave out


SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_positions": "max_position_embeddings",
}
BERT_SETTINGS = {**SIZES, "num_token_types": "type_vocab_size", "layer_norm_eps": "layer_norm_eps"}
BERT_REQUIRED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
BERT_DEFAULTS = {"layer_norm_eps": 1e-12, "type_vocab_size": 2, "pad_token_id": 0}


def _embeddings(prefix: str) -> dict[str, str]:
    return {
        "embeddings.word": f"{prefix}.embeddings.word_embeddings",
        "embeddings.position": f"{prefix}.embeddings.position_embeddings",
        "embeddings.token_type": f"{prefix}.embeddings.token_type_embeddings",
        "embeddings.norm": f"{prefix}.embeddings.LayerNorm",
    }


def _bert_encoder(prefix: str) -> dict[str, str]:
    layer = f"{prefix}.encoder.layer.{{i}}"
    return {
        **_embeddings(prefix),
        "layers.{i}.attention.query": f"{layer}.attention.self.query",
        "layers.{i}.attention.key": f"{layer}.attention.self.key",
        "layers.{i}.attention.value": f"{layer}.attention.self.value",
        "layers.{i}.attention.output": f"{layer}.attention.output.dense",
        "layers.{i}.attention_norm": f"{layer}.attention.output.LayerNorm",
        "layers.{i}.feed_forward.up": f"{layer}.intermediate.dense",
        "layers.{i}.feed_forward.down": f"{layer}.output.dense",
        "layers.{i}.feed_forward_norm": f"{layer}.output.LayerNorm",
    }


BERT = Architecture(
    mlm_class="BertForMaskedLM",
    prefix="bert.",
    settings=BERT_SETTINGS,
    fixed={},
    required=BERT_REQUIRED,
    defaults=BERT_DEFAULTS,
    weights={
        **_bert_encoder("bert"),
        "head.transform": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head.decoder": "cls.predictions.decoder",
    },
    class_class="BertForSequenceClassification",
    class_weights={"classifier.dense": "bert.pooler.dense", "classifier.output": "classifier"},
)

DISTILBERT = Architecture(
    mlm_class="DistilBertForMaskedLM",
    prefix="distilbert.",
    settings={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "max_positions": "max_position_embeddings",
    },
    fixed={"num_token_types": 0, "layer_norm_eps": 1e-12},
    required={"activation": "gelu"},
    defaults={"pad_token_id": 0},
    weights={
        **_embeddings("distilbert"),
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
    class_class="DistilBertForSequenceClassification",
    class_weights={"classifier.dense": "pre_classifier", "classifier.output": "classifier"},
    class_bend="relu",
)


def _roberta_positions(raw: Raw) -> dict[str, Any]:
    """Take from the table of positions what lies before the first token's."""
    offset = whole(raw, "pad_token_id") + 1
    longest = whole(raw, "max_position_embeddings") - offset
    if longest < 2:
        raise CheckpointError(
            f"config.json has {longest + offset} positions, {offset} of them unused"
        )
    return {"position_offset": offset, "max_positions": longest}


ROBERTA = Architecture(
    mlm_class="RobertaForMaskedLM",
    prefix="roberta.",
    settings=BERT_SETTINGS,
    fixed={},
    required=BERT_REQUIRED,
    defaults={**BERT_DEFAULTS, "pad_token_id": 1},
    weights={
        **_bert_encoder("roberta"),
        "head.transform": "lm_head.dense",
        "head.norm": "lm_head.layer_norm",
        "head.decoder": "lm_head.decoder",
    },
    class_class="RobertaForSequenceClassification",
    class_weights={
        "classifier.dense": "classifier.dense",
        "classifier.output": "classifier.out_proj",
    },
    derive=_roberta_positions,
)
XLM_ROBERTA = replace(
    ROBERTA,
    mlm_class="XLMRobertaForMaskedLM",
    class_class="XLMRobertaForSequenceClassification",
)
CAMEMBERT = replace(
    ROBERTA, mlm_class="CamembertForMaskedLM", class_class="CamembertForSequenceClassification"
)


def _albert_activation(raw: Raw) -> dict[str, Any]:
    """Tell the two forms of gelu apart, which BERT's other relatives do not mix."""
    name = raw.get("hidden_act", "gelu_new")
    if name not in ("gelu", "gelu_new"):
        raise CheckpointError(f"config.json has hidden_act {name!r}; supported: gelu, gelu_new")
    return {"tanh_gelu": name == "gelu_new"}


_ALBERT_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"
ALBERT = Architecture(
    mlm_class="AlbertForMaskedLM",
    prefix="albert.",
    settings={**BERT_SETTINGS, "embedding_size": "embedding_size"},
    fixed={"shared_layers": True},
    required={
        "position_embedding_type": "absolute",
        "num_hidden_groups": 1,
        "inner_group_num": 1,
    },
    defaults=BERT_DEFAULTS,
    weights={
        **_embeddings("albert"),
        "embeddings.projection": "albert.encoder.embedding_hidden_mapping_in",
        "layers.{i}.attention.query": f"{_ALBERT_LAYER}.attention.query",
        "layers.{i}.attention.key": f"{_ALBERT_LAYER}.attention.key",
        "layers.{i}.attention.value": f"{_ALBERT_LAYER}.attention.value",
        "layers.{i}.attention.output": f"{_ALBERT_LAYER}.attention.dense",
        "layers.{i}.attention_norm": f"{_ALBERT_LAYER}.attention.LayerNorm",
        "layers.{i}.feed_forward.up": f"{_ALBERT_LAYER}.ffn",
        "layers.{i}.feed_forward.down": f"{_ALBERT_LAYER}.ffn_output",
        "layers.{i}.feed_forward_norm": f"{_ALBERT_LAYER}.full_layer_layer_norm",
        "head.transform": "predictions.dense",
        "head.norm": "predictions.LayerNorm",
        "head.decoder": "predictions.decoder",
    },
    derive=_albert_activation,
)


def _modernbert_layers(raw: Raw) -> dict[str, Any]:
    """Tell local layers from global ones, and which layers have no bias."""
    count, every = whole(raw, "num_hidden_layers"), whole(raw, "global_attn_every_n_layers")
    kinds = raw.get("layer_types") or [
        "sliding_attention" if layer % max(every, 1) else "full_attention" for layer in range(count)
    ]
    bases = {
        "full_attention": rotary_base(raw, "global_rope_theta", "full_attention"),
        "sliding_attention": rotary_base(raw, "local_rope_theta", "sliding_attention"),
    }
    if not isinstance(kinds, list) or len(kinds) != count or not set(map(str, kinds)) <= set(bases):
        raise CheckpointError(
            f"config.json does not give each of {count} layers a known layer_type"
        )
    flags = {
        "norm_bias": ("norm",),
        "attention_bias": tuple(f"attention.{r}" for r in ("query", "key", "value", "output")),
        "mlp_bias": tuple(f"feed_forward.{role}" for role in ("gate", "up", "down")),
        "classifier_bias": ("head.transform",),
    }
    reach = whole(raw, "local_attention") // 2
    return {
        "rotary_bases": tuple(bases[kind] for kind in kinds),
        "windows": tuple(reach if kind == "sliding_attention" else None for kind in kinds),
        "without_bias": frozenset(
            kind for flag, names in flags.items() if not raw.get(flag) for kind in names
        ),
    }


MODERNBERT = Architecture(
    mlm_class="ModernBertForMaskedLM",
    prefix="model.",
    settings={**SIZES, "layer_norm_eps": "norm_eps"},
    fixed={"num_token_types": 0, "pre_norm": True, "gated": True},
    required={
        "hidden_activation": "gelu",
        "classifier_activation": "gelu",
        "decoder_bias": True,
    },
    defaults={
        "norm_eps": 1e-5,
        "pad_token_id": 50283,
        "global_attn_every_n_layers": 3,
        "local_attention": 128,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
    },
    weights={
        "embeddings.word": "model.embeddings.tok_embeddings",
        "embeddings.norm": "model.embeddings.norm",
        "layers.{i}.attention.query": Part("model.layers.{i}.attn.Wqkv", 0, 3),
        "layers.{i}.attention.key": Part("model.layers.{i}.attn.Wqkv", 1, 3),
        "layers.{i}.attention.value": Part("model.layers.{i}.attn.Wqkv", 2, 3),
        "layers.{i}.attention.output": "model.layers.{i}.attn.Wo",
        "layers.{i}.attention_norm": "model.layers.{i}.attn_norm",
        "layers.{i}.feed_forward.gate": Part("model.layers.{i}.mlp.Wi", 0, 2),
        "layers.{i}.feed_forward.up": Part("model.layers.{i}.mlp.Wi", 1, 2),
        "layers.{i}.feed_forward.down": "model.layers.{i}.mlp.Wo",
        "layers.{i}.feed_forward_norm": "model.layers.{i}.mlp_norm",
        "final_norm": "model.final_norm",
        "head.transform": "head.dense",
        "head.norm": "head.norm",
        "head.decoder": "decoder",
    },
    derive=_modernbert_layers,
)


def _gte_rotation(raw: Raw) -> dict[str, Any]:
    """Read the rotary settings, of which the scaling may be NTK-aware or absent."""
    scaling = raw.get("rope_scaling") or {}
    kind = isinstance(scaling, dict) and scaling.get("type", scaling.get("rope_type", "default"))
    if kind not in ("default", "ntk") or scaling.get("mixed_b") is not None:
        raise CheckpointError(f"config.json has rope_scaling {scaling!r}; supported is plain ntk")
    factor = number(scaling, "factor", 1.0) if kind == "ntk" else 1.0
    base = rotary_base(raw, "rope_theta")
    return {
        "rotary_bases": (base,) * whole(raw, "num_hidden_layers"),
        "rotary_scaling": factor,
        "without_bias": frozenset(("feed_forward.gate", "feed_forward.up")),
    }


def _gte(prefix: str, mlm_class: str) -> Architecture:
    layer = f"{prefix}.encoder.layer.{{i}}"
    return Architecture(
        mlm_class=mlm_class,
        prefix=f"{prefix}.",
        settings=BERT_SETTINGS,
        fixed={"gated": True},
        required={
            "hidden_act": "gelu",
            "position_embedding_type": "rope",
            "layer_norm_type": "layer_norm",
            "logn_attention_scale": False,
            "pack_qkv": True,
        },
        defaults={**BERT_DEFAULTS, "rope_theta": 160_000.0},
        weights={
            **_embeddings(prefix),
            "layers.{i}.attention.query": Part(f"{layer}.attention.qkv_proj", 0, 3),
            "layers.{i}.attention.key": Part(f"{layer}.attention.qkv_proj", 1, 3),
            "layers.{i}.attention.value": Part(f"{layer}.attention.qkv_proj", 2, 3),
            "layers.{i}.attention.output": f"{layer}.attention.o_proj",
            "layers.{i}.attention_norm": f"{layer}.attn_ln",
            "layers.{i}.feed_forward.up": Part(f"{layer}.mlp.up_gate_proj", 0, 2),
            "layers.{i}.feed_forward.gate": Part(f"{layer}.mlp.up_gate_proj", 1, 2),
            "layers.{i}.feed_forward.down": f"{layer}.mlp.down_proj",
            "layers.{i}.feed_forward_norm": f"{layer}.mlp_ln",
            "head.transform": "lm_head.dense",
            "head.norm": "lm_head.norm",
            "head.decoder": "lm_head.decoder",
        },
        derive=_gte_rotation,
    )


ARCHITECTURES = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "albert": ALBERT,
    "modernbert": MODERNBERT,
    "new": _gte("new", "NewForMaskedLM"),
    "gte": _gte("gte", "GteForMaskedLM"),
}
"""By config.json's model_type; "new" is what GTE's files call themselves, "gte" transformers."""

BIAS_ALIASES = {
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "lm_head.decoder.bias": "lm_head.bias",
    "predictions.decoder.bias": "predictions.bias",
}
"""Files may keep the decoder's bias under its older name as well as, or instead of, this one."""


def whole(raw: Raw, key: str) -> int:
    """Return a whole number of config.json; raises CheckpointError."""
    value = raw.get(key)
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise CheckpointError(f"config.json gives {key} as {value!r}; expected int, 0 or more")
    return value


def number(raw: Raw, key: str, default: float | None = None) -> float:
    """Return a number of config.json, above 0; raises CheckpointError."""
    value = raw.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1e30:
        raise CheckpointError(f"config.json gives {key} as {value!r}; expected a number above 0")
    return float(value)


def rotary_base(raw: Raw, key: str, kind: str | None = None) -> float:
    """Return the base of rotary positions, which newer files keep under rope_parameters."""
    parameters = raw.get("rope_parameters")
    if kind and isinstance(parameters, dict):
        parameters = parameters.get(kind)
    if not isinstance(parameters, dict):
        return number(raw, key)
    if parameters.get("rope_type", "default") != "default":
        raise CheckpointError(
            f"config.json has rope_type {parameters['rope_type']!r}; supported is 'default'"
        )
    return number(parameters, "rope_theta", raw.get(key))
