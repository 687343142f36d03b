"""BERT and DistilBERT: one post-norm encoder, from token ids to hidden states."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from minisplade.arrays import BoolArray, FloatArray, IdArray, Params
from minisplade.functional import attention, gelu, layer_norm, linear


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The sizes that fix the shape of every weight."""

    vocab_size: int  # V
    hidden_size: int  # D
    num_layers: int
    num_heads: int  # H
    intermediate_size: int  # F
    max_positions: int
    num_token_types: int  # DistilBERT: 0
    layer_norm_eps: float
    pad_token_id: int = 0


class Step(NamedTuple):
    """What one step of the encoder makes of all tokens."""

    function: Callable[..., Any]  # what does it
    hidden_states: FloatArray  # float32 (B, T, D)
    attention: FloatArray | None  # float32 (B, H, T, T), if the step has any


def hidden_states(
    params: Params, config: BertConfig, input_ids: IdArray, attention_mask: BoolArray
) -> FloatArray:
    """Run the whole encoder.

    input_ids: int32 (B, T); attention_mask: bool (B, T); returns float32 (B, T, D).
    Source: Devlin et al. 2018, "BERT"; for DistilBERT, Sanh et al. 2019.
    """
    x = embed(params, config, input_ids)
    for layer in range(config.num_layers):
        x, _ = encoder_layer(params, config, layer, x, attention_mask)
    return x


def steps(
    params: Params, config: BertConfig, input_ids: IdArray, attention_mask: BoolArray
) -> Iterator[Step]:
    """Run the encoder as hidden_states does, and show what each step gives."""
    x = embed(params, config, input_ids)
    yield Step(embed, x, None)
    for layer in range(config.num_layers):
        x, shares = encoder_layer(params, config, layer, x, attention_mask)
        yield Step(encoder_layer, x, shares)


def embed(params: Params, config: BertConfig, input_ids: IdArray) -> FloatArray:
    """Add what each token is to where it stands, and normalise.

    input_ids: int32 (B, T); returns float32 (B, T, D).
    """
    x = params["embeddings.word.weight"][input_ids]  # (B, T, D)
    x += params["embeddings.position.weight"][: input_ids.shape[1]]
    if config.num_token_types:
        # SPLADE reads one text at a time, so every token is of the first type.
        x += params["embeddings.token_type.weight"][0]
    return _norm(params, "embeddings.norm", x, config)


def encoder_layer(
    params: Params, config: BertConfig, layer: int, x: FloatArray, attention_mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Let tokens look at each other, then think on their own; add and normalise after each.

    x: float32 (B, T, D); attention_mask: bool (B, T); returns float32 (B, T, D), and the shares of
    attention, float32 (B, H, T, T).
    """
    block = f"layers.{layer}"
    mixed, shares = self_attention(params, config, f"{block}.attention", x, attention_mask)
    x = _norm(params, f"{block}.attention_norm", x + mixed, config)
    inner = gelu(_linear(params, f"{block}.feed_forward.up", x))  # (B, T, F)
    outer = _linear(params, f"{block}.feed_forward.down", inner)
    return _norm(params, f"{block}.feed_forward_norm", x + outer, config), shares


def self_attention(
    params: Params, config: BertConfig, block: str, x: FloatArray, attention_mask: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Mix each token with the others of its text, in every head on its own.

    x: float32 (B, T, D); attention_mask: bool (B, T); returns float32 (B, T, D), and the shares of
    attention, float32 (B, H, T, T).
    """
    query, key, value = (
        _split_heads(_linear(params, f"{block}.{role}", x), config.num_heads)
        for role in ("query", "key", "value")
    )
    mixed, shares = attention(query, key, value, attention_mask)  # (B, H, T, K)
    mixed = mixed.swapaxes(1, 2).reshape(x.shape)
    return _linear(params, f"{block}.output", mixed), shares


def _split_heads(x: FloatArray, num_heads: int) -> FloatArray:
    """Cut float32 (B, T, D) into (B, H, T, K)."""
    return x.reshape(*x.shape[:2], num_heads, -1).swapaxes(1, 2)


def _linear(params: Params, name: str, x: FloatArray) -> FloatArray:
    return linear(x, params[f"{name}.weight"], params[f"{name}.bias"])


def _norm(params: Params, name: str, x: FloatArray, config: BertConfig) -> FloatArray:
    return layer_norm(x, params[f"{name}.weight"], params[f"{name}.bias"], config.layer_norm_eps)


def param_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of the encoder."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word.weight": (config.vocab_size, hidden),
        "embeddings.position.weight": (config.max_positions, hidden),
    }
    if config.num_token_types:
        shapes["embeddings.token_type.weight"] = (config.num_token_types, hidden)
    shapes |= _norm_shapes("embeddings.norm", hidden)
    for layer in range(config.num_layers):
        block = f"layers.{layer}"
        for role in ("query", "key", "value", "output"):
            shapes |= _linear_shapes(f"{block}.attention.{role}", hidden, hidden)
        shapes |= _norm_shapes(f"{block}.attention_norm", hidden)
        shapes |= _linear_shapes(f"{block}.feed_forward.up", hidden, inner)
        shapes |= _linear_shapes(f"{block}.feed_forward.down", inner, hidden)
        shapes |= _norm_shapes(f"{block}.feed_forward_norm", hidden)
    return shapes


def _linear_shapes(name: str, size_in: int, size_out: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size_out, size_in), f"{name}.bias": (size_out,)}


def _norm_shapes(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
