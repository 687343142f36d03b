"""The masked-language-model head: from hidden states to one logit per term of the vocabulary."""

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
    return linear(transformed, params["head.decoder.weight"], params["head.decoder.bias"])


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
