"""The masked-language-model head: from hidden states to one logit per term of the vocabulary."""

import numpy as np

from minisplade.arrays import FloatArray, Params
from minisplade.functional import gelu, layer_norm, linear
from minisplade.models.bert import BertConfig


def mlm_transform(params: Params, config: BertConfig, hidden_states: FloatArray) -> FloatArray:
    """Prepare hidden states for comparison with the decoder's rows.

    hidden_states: float32 (B, T, D); returns float32 (B, T, D).
    """
    x = linear(hidden_states, params["head.transform.weight"], params["head.transform.bias"])
    weight, bias = params["head.norm.weight"], params["head.norm.bias"]
    return layer_norm(gelu(x), weight, bias, config.layer_norm_eps)


def mlm_logits(params: Params, transformed: FloatArray) -> FloatArray:
    """Score every term at every position.

    transformed: float32 (B, T, D); returns float32 (B, T, V), which is large: 32 texts of 256
    tokens over 30,522 terms take 1 GB. pooling.pool_tiles never holds it whole.
    """
    # Summed in float64: products near 20 cancel here, and with real weights a float32 sum alone
    # would be off by 1.3e-5, most of what may separate two implementations.
    weight = params["head.decoder.weight"].astype(np.float64)
    return (transformed @ weight.T + params["head.decoder.bias"]).astype(np.float32)


def param_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight of the head."""
    hidden, vocabulary = config.hidden_size, config.vocab_size
    return {
        "head.transform.weight": (hidden, hidden),
        "head.transform.bias": (hidden,),
        "head.norm.weight": (hidden,),
        "head.norm.bias": (hidden,),
        "head.decoder.weight": (vocabulary, hidden),
        "head.decoder.bias": (vocabulary,),
    }
