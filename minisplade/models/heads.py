"""What comes after the encoder: logits of terms, scores of pairs, and weights of tokens."""

from typing import Literal

import numpy as np

from minisplade.arrays import FloatArray, Params
from minisplade.functional import gelu, layer_norm, linear, tanh_gelu
from minisplade.models.bert import BertConfig, linear_shapes, norm_shapes

Bend = Literal["tanh", "relu"]


def mlm_transform(params: Params, config: BertConfig, hidden_states: FloatArray) -> FloatArray:
    """Prepare hidden states for comparison with the decoder's rows.

    hidden_states: float32 (B, T, D); returns float32 (B, T, D), or ALBERT's smaller word size.
    """
    bias = params.get("head.transform.bias", 0)
    x = linear(hidden_states, params["head.transform.weight"], bias)
    x = tanh_gelu(x) if config.tanh_gelu else gelu(x)
    weight, bias = params["head.norm.weight"], params.get("head.norm.bias", 0)
    return layer_norm(x, weight, bias, config.layer_norm_eps)


def mlm_logits(params: Params, transformed: FloatArray) -> FloatArray:
    """Score every term at every position.

    transformed: float32 (B, T, D); returns float32 (B, T, V), which is large: 32 texts of 256
    tokens over 30,522 terms take 1 GB. pooling.pool_tiles never holds it whole.
    """
    # Summed in float64: products near 20 cancel here, and with real weights a float32 sum alone
    # would be off by 1.3e-5, most of what may separate two implementations.
    weight = params["head.decoder.weight"].astype(np.float64)
    return (transformed @ weight.T + params["head.decoder.bias"]).astype(np.float32)


def mlm_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of the masked-language-model head."""
    hidden, word, vocabulary = config.hidden_size, config.word_size, config.vocab_size
    return {
        **linear_shapes(config, "head.transform", hidden, word),
        **norm_shapes(config, "head.norm", word),
        "head.decoder.weight": (vocabulary, word),
        "head.decoder.bias": (vocabulary,),
    }


def class_logits(params: Params, first_states: FloatArray, bend: Bend) -> FloatArray:
    """Score texts, or pairs of texts, by the hidden state of their first token.

    first_states: float32 (B, D); returns float32 (B, C), one column for each class.
    """
    inner = linear(first_states, params["classifier.dense.weight"], params["classifier.dense.bias"])
    inner = np.tanh(inner) if bend == "tanh" else np.maximum(inner, 0)
    return linear(inner, params["classifier.output.weight"], params["classifier.output.bias"])


def class_shapes(config: BertConfig, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of the classification head."""
    hidden = config.hidden_size
    return {
        **linear_shapes(config, "classifier.dense", hidden, hidden),
        **linear_shapes(config, "classifier.output", hidden, num_classes),
    }


def token_weights(params: Params, hidden_states: FloatArray) -> FloatArray:
    """Weigh each token of a text itself, without others: bge-m3's sparse head.

    hidden_states: float32 (..., D); returns float32 (...), 0 or more.
    Source: Chen et al. 2024, "BGE M3-Embedding", section 3.2, lexical retrieval.
    """
    weights = linear(hidden_states, params["sparse.weight"], params["sparse.bias"])
    return np.maximum(weights[..., 0], 0)
