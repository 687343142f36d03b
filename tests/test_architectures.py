"""What config.json may say of each architecture, and what is refused before any weight is read."""

import json
from typing import Any

import pytest
from conftest import GOLDEN

from minisplade.errors import CheckpointError
from minisplade.models.architectures import ARCHITECTURES
from minisplade.models.bert import BertConfig
from minisplade.models.names import find_architecture, num_classes, read_config


def config(name: str, **change: Any) -> BertConfig:
    raw = json.loads((GOLDEN / name / "config.json").read_text())
    return read_config(raw | change)


def test_what_sets_the_architectures_apart() -> None:
    bert, roberta, gte = config("bert"), config("roberta"), config("gte")
    albert, modernbert = config("albert"), config("modernbert")
    assert (bert.position_offset, bert.max_positions, bert.num_token_types) == (0, 40, 2)
    assert (roberta.position_offset, roberta.max_positions, roberta.num_token_types) == (2, 40, 1)
    assert config("distilbert").num_token_types == 0
    assert albert.shared_layers and albert.embedding_size == 12 and albert.tanh_gelu
    assert gte.gated and not gte.pre_norm and gte.rotary_bases == (160_000.0,) * 2
    assert modernbert.gated and modernbert.pre_norm
    assert modernbert.rotary_bases == (160_000.0, 10_000.0)
    assert modernbert.windows == (None, 4)
    assert {"norm", "attention.query", "feed_forward.gate"} < modernbert.without_bias
    assert config("modernbert-biased").without_bias == frozenset()


def test_settings_of_rotary_positions() -> None:
    scaled = config("gte", rope_scaling={"type": "ntk", "factor": 2.0}, rope_theta=500.0)
    assert (scaled.rotary_scaling, scaled.rotary_bases) == (2.0, (500.0, 500.0))
    assert config("gte", rope_scaling={"rope_type": "default"}).rotary_scaling == 1
    every = {"layer_types": None, "global_attn_every_n_layers": 1}
    assert config("modernbert", **every).windows == (None, None)
    assert config("modernbert", local_attention=129).windows == (None, 64)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("roberta", {"max_position_embeddings": 3}, "has 3 positions, 2 of them unused"),
        ("roberta", {"pad_token_id": -1}, "gives pad_token_id as -1; expected int, 0 or more"),
        ("roberta", {"hidden_act": "gelu_new"}, "hidden_act 'gelu_new'; supported is 'gelu'"),
        ("albert", {"hidden_act": "relu"}, "hidden_act 'relu'; supported: gelu, gelu_new"),
        ("albert", {"num_hidden_groups": 2}, "num_hidden_groups 2; supported is 1"),
        ("albert", {"embedding_size": "12"}, "gives embedding_size as '12'; expected int"),
        ("gte", {"layer_norm_type": "rms_norm"}, "layer_norm_type 'rms_norm'; supported is"),
        ("gte", {"pack_qkv": False}, "pack_qkv False; supported is True"),
        ("gte", {"logn_attention_scale": True}, "logn_attention_scale True; supported is False"),
        ("gte", {"rope_scaling": {"type": "yarn"}}, "rope_scaling .*; supported is plain ntk"),
        ("gte", {"rope_scaling": "ntk"}, "rope_scaling 'ntk'; supported is plain ntk"),
        ("gte", {"rope_scaling": {"type": "ntk", "mixed_b": 0.5}}, "supported is plain ntk"),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 0}}, "gives factor as 0; expected a n"),
        ("gte", {"rope_theta": "far"}, "gives rope_theta as 'far'; expected a number above 0"),
        ("gte", {"num_attention_heads": 16}, "heads of an odd size cannot have rotary positions"),
        ("modernbert", {"layer_types": ["full_attention"]}, "each of 2 layers a known layer_type"),
        ("modernbert", {"layer_types": ["a", "b"]}, "each of 2 layers a known layer_type"),
        ("modernbert", {"layer_types": 5}, "each of 2 layers a known layer_type"),
        ("modernbert", {"local_attention": None, "num_hidden_layers": "2"}, "gives num_layers as"),
        ("modernbert", {"local_attention": 1.5}, "gives local_attention as 1.5; expected int"),
        ("modernbert", {"hidden_activation": "silu"}, "hidden_activation 'silu'; supported"),
        ("modernbert", {"decoder_bias": False}, "decoder_bias False; supported is True"),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 1.0}}},
            "rope_type 'yarn'; supported is 'default'",
        ),
        ("bert", {"num_hidden_layers": 1001}, "gives num_layers as 1001; too many"),
    ],
)
def test_what_is_not_supported(name: str, change: dict[str, Any], expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        config(name, **change)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [({}, 2), ({"num_labels": 4}, 4), ({"id2label": {"0": "a"}}, 1)],
)
def test_number_of_classes(raw: dict[str, Any], expected: int) -> None:
    assert num_classes(raw) == expected


def test_number_of_classes_that_is_none() -> None:
    with pytest.raises(CheckpointError, match="gives num_labels as 'two'"):
        num_classes({"num_labels": "two"})


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_a_bare_encoder_is_enough_where_no_head_is_needed(model_type: str) -> None:
    raw = {"model_type": model_type, "architectures": ["AnyModel"]}
    assert find_architecture(raw, "encoder") is ARCHITECTURES[model_type]
    with pytest.raises(CheckpointError, match="SPLADE needs the masked-language-model head of a"):
        find_architecture(raw)
