"""BERT and its relatives: one encoder, from token ids to hidden states.

What sets BERT, DistilBERT, RoBERTa, XLM-RoBERTa, ALBERT, ModernBERT and GTE apart are fields of
BertConfig; architectures.py tells how config.json says them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minisplade.arrays import BoolArray, FloatArray, IdArray, Params
from minisplade.functional import attention, gelu, layer_norm, linear, rotate, tanh_gelu


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The sizes that fix the shape of every weight, and the ways in which relatives differ."""

    vocab_size: int  # V
    hidden_size: int  # D
    num_layers: int
    num_heads: int  # H
    intermediate_size: int  # F
    max_positions: int  # tokens that a text may have
    num_token_types: int  # DistilBERT, ModernBERT: 0
    layer_norm_eps: float
    pad_token_id: int = 0
    position_offset: int = 0  # RoBERTa: the first token stands at padding id + 1
    embedding_size: int | None = None  # ALBERT: smaller than D
    shared_layers: bool = False  # ALBERT: all layers have the weights of the first
    tanh_gelu: bool = False  # ALBERT
    pre_norm: bool = False  # ModernBERT: normalise before attention and feed-forward, not after
    gated: bool = False  # ModernBERT, GTE: feed-forward has a gate
    rotary_bases: tuple[float, ...] = ()  # the same two: of each layer, in place of positions
    rotary_scaling: float = 1.0  # GTE
    windows: tuple[int | None, ...] = ()  # ModernBERT: how far tokens see in each layer
    without_bias: frozenset[str] = frozenset()  # last parts of names, such as "feed_forward.up"

    def block(self, layer: int) -> str:
        """Return the first part of the names of a layer's weights."""
        return f"layers.{0 if self.shared_layers else layer}"

    @property
    def word_size(self) -> int:
        """Numbers in a word embedding, and in a row of the decoder."""
        return self.embedding_size or self.hidden_size


class Step(NamedTuple):
    """What one step of the encoder makes of all tokens."""

    function: Callable[..., Any]  # what does it
    hidden_states: FloatArray  # float32 (B, T, D)
    attention: FloatArray | None  # float32 (B, H, T, T), if the step has any


def hidden_states(
    params: Params,
    config: BertConfig,
    input_ids: IdArray,
    attention_mask: BoolArray,
    token_type_ids: IdArray | None = None,
) -> FloatArray:
    """Run the whole encoder.

    input_ids, token_type_ids: int32 (B, T); None is the first type for all; attention_mask: bool
    (B, T); returns float32 (B, T, D).
    Sources: Devlin et al. 2018, "BERT"; Sanh et al. 2019, "DistilBERT"; Liu et al. 2019, "RoBERTa";
    Conneau et al. 2019 (XLM-R); Lan et al. 2019, "ALBERT"; Warner et al. 2024 (ModernBERT); Zhang
    et al. 2024, "mGTE".
    """
    x = embed(params, config, input_ids, token_type_ids)
    for layer in range(config.num_layers):
        x, _ = encoder_layer(params, config, layer, x, attention_mask)
    return _last(params, config, x)


def steps(
    params: Params, config: BertConfig, input_ids: IdArray, attention_mask: BoolArray
) -> Iterator[Step]:
    """Run the encoder as hidden_states does, and show what it would return after each step.

    Where a norm follows the last layer, that is what this norm makes of the step.
    """
    x = embed(params, config, input_ids)
    yield Step(embed, _last(params, config, x), None)
    for layer in range(config.num_layers):
        x, shares = encoder_layer(params, config, layer, x, attention_mask)
        yield Step(encoder_layer, _last(params, config, x), shares)


def embed(
    params: Params, config: BertConfig, input_ids: IdArray, token_type_ids: IdArray | None = None
) -> FloatArray:
    """Add what each token is to where it stands, and normalise.

    input_ids, token_type_ids: int32 (B, T); returns float32 (B, T, D).
    """
    x = params["embeddings.word.weight"][input_ids]  # (B, T, D)
    if not config.rotary_bases:
        x += params["embeddings.position.weight"][positions(config, input_ids)]
    if config.num_token_types:
        types = 0 if token_type_ids is None else token_type_ids
        x += params["embeddings.token_type.weight"][types]
    x = _norm(params, "embeddings.norm", x, config)
    return _linear(params, "embeddings.projection", x) if config.embedding_size else x


def positions(config: BertConfig, input_ids: IdArray) -> IdArray:
    """Return the row of each token in the table of positions: int32 (..., T) to the same shape.

    RoBERTa counts from padding id + 1, and leaves padding where it is, even in a text.
    """
    if not config.position_offset:
        return np.broadcast_to(np.arange(input_ids.shape[-1], dtype=np.int32), input_ids.shape)
    real = input_ids != config.pad_token_id
    place = np.cumsum(real, axis=-1) * real + config.position_offset - 1
    return place.astype(np.int32)


def encoder_layer(
    params: Params, config: BertConfig, layer: int, x: FloatArray, attention_mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Let tokens look at each other, then think on their own; add after each.

    x: float32 (B, T, D); attention_mask: bool (B, T); returns float32 (B, T, D), and the shares of
    attention, float32 (B, H, T, T).
    """
    block = config.block(layer)
    if config.pre_norm:
        # Embeddings are normalised already.
        normed = _norm(params, f"{block}.attention_norm", x, config) if layer else x
        mixed, shares = self_attention(params, config, layer, normed, attention_mask)
        x = x + mixed
        normed = _norm(params, f"{block}.feed_forward_norm", x, config)
        return x + feed_forward(params, config, f"{block}.feed_forward", normed), shares
    mixed, shares = self_attention(params, config, layer, x, attention_mask)
    x = _norm(params, f"{block}.attention_norm", x + mixed, config)
    x = x + feed_forward(params, config, f"{block}.feed_forward", x)
    return _norm(params, f"{block}.feed_forward_norm", x, config), shares


def self_attention(
    params: Params, config: BertConfig, layer: int, x: FloatArray, attention_mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Mix each token with the others of its text, in every head on its own.

    x: float32 (B, T, D); attention_mask: bool (B, T); returns float32 (B, T, D), and the shares of
    attention, float32 (B, H, T, T).
    """
    block = f"{config.block(layer)}.attention"
    query, key, value = (
        _split_heads(_linear(params, f"{block}.{role}", x), config.num_heads)
        for role in ("query", "key", "value")
    )
    if config.rotary_bases:
        turn = config.rotary_bases[layer], config.rotary_scaling
        query, key = rotate(query, *turn), rotate(key, *turn)
    window = config.windows[layer] if config.windows else None
    mixed, shares = attention(query, key, value, attention_mask, window)  # (B, H, T, K)
    mixed = mixed.swapaxes(1, 2).reshape(x.shape)
    return _linear(params, f"{block}.output", mixed), shares


def feed_forward(params: Params, config: BertConfig, block: str, x: FloatArray) -> FloatArray:
    """Widen, bend and narrow each token.

    x: float32 (B, T, D); returns float32 (B, T, D). Source of the gate: Shazeer 2020, "GLU Variants
    Improve Transformer", equation 6 (GEGLU).
    """
    inner = _linear(params, f"{block}.up", x)  # (B, T, F)
    if config.gated:
        inner = gelu(_linear(params, f"{block}.gate", x)) * inner
    else:
        inner = tanh_gelu(inner) if config.tanh_gelu else gelu(inner)
    return _linear(params, f"{block}.down", inner)


def _split_heads(x: FloatArray, num_heads: int) -> FloatArray:
    """Cut float32 (B, T, D) into (B, H, T, K)."""
    return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2)


def _linear(params: Params, name: str, x: FloatArray) -> FloatArray:
    return linear(x, params[f"{name}.weight"], params.get(f"{name}.bias", 0))


def _norm(params: Params, name: str, x: FloatArray, config: BertConfig) -> FloatArray:
    weight, bias = params[f"{name}.weight"], params.get(f"{name}.bias", 0)
    return layer_norm(x, weight, bias, config.layer_norm_eps)


def _last(params: Params, config: BertConfig, x: FloatArray) -> FloatArray:
    """Normalise what the last layer gives, where it has not been."""
    return _norm(params, "final_norm", x, config) if config.pre_norm else x


def param_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of the encoder."""
    hidden, inner, word = config.hidden_size, config.intermediate_size, config.word_size
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word.weight": (config.vocab_size, word)}
    if not config.rotary_bases:
        rows = config.max_positions + config.position_offset
        shapes["embeddings.position.weight"] = (rows, word)
    if config.num_token_types:
        shapes["embeddings.token_type.weight"] = (config.num_token_types, word)
    shapes |= norm_shapes(config, "embeddings.norm", word)
    if config.embedding_size:
        shapes |= linear_shapes(config, "embeddings.projection", word, hidden)
    for layer in range(1 if config.shared_layers else config.num_layers):
        block = config.block(layer)
        for role in ("query", "key", "value", "output"):
            shapes |= linear_shapes(config, f"{block}.attention.{role}", hidden, hidden)
        if layer or not config.pre_norm:
            shapes |= norm_shapes(config, f"{block}.attention_norm", hidden)
        for role in ("gate", "up") if config.gated else ("up",):
            shapes |= linear_shapes(config, f"{block}.feed_forward.{role}", hidden, inner)
        shapes |= linear_shapes(config, f"{block}.feed_forward.down", inner, hidden)
        shapes |= norm_shapes(config, f"{block}.feed_forward_norm", hidden)
    if config.pre_norm:
        shapes |= norm_shapes(config, "final_norm", hidden)
    return shapes


def linear_shapes(
    config: BertConfig, name: str, size_in: int, size_out: int
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a linear layer's weight, and of its bias if it has one."""
    return {f"{name}.weight": (size_out, size_in)} | _bias_shape(config, name, size_out)


def norm_shapes(config: BertConfig, name: str, size: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a norm's weight, and of its bias if it has one."""
    return {f"{name}.weight": (size,)} | _bias_shape(config, name, size)


def _bias_shape(config: BertConfig, name: str, size: int) -> dict[str, tuple[int, ...]]:
    """Return a bias's shape; config.without_bias lists those that have none by ends of names."""
    absent = any(name.endswith(kind) for kind in config.without_bias)
    return {} if absent else {f"{name}.bias": (size,)}
