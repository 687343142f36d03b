"""Seeded random models of every architecture, made with transformers: for golden files and parity.

Weights are large, biases and norms random too, so that a mistake in any layer shows.
"""

from typing import Any

import torch
import transformers as hf

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4}
SMALL = {**SIZES, "intermediate_size": 40, "max_position_embeddings": 40}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    # kind: name of its classes in transformers, settings beyond the sizes
    "bert": ("Bert", {}),
    "distilbert": ("DistilBert", {}),
    "roberta": ("Roberta", {"pad_token_id": 1, "layer_norm_eps": 1e-5, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {"pad_token_id": 1, "type_vocab_size": 1}),
    "camembert": ("Camembert", {"pad_token_id": 1, "type_vocab_size": 1}),
    "albert": ("Albert", {"embedding_size": 12}),
    "modernbert": ("ModernBert", {"local_attention": 8, "global_attn_every_n_layers": 2}),
    "gte": ("Gte", {"pad_token_id": 0}),
}
DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
}


def random_model(
    kind: str, vocab_size: int, seed: int = 0, task: str = "MaskedLM", **settings: Any
) -> Any:
    """Return a model in float32, ready to run; settings are those of its config."""
    prefix, extra = KINDS[kind]
    if kind in ("roberta", "xlm-roberta", "camembert"):
        extra = extra | {"max_position_embeddings": 42}  # two of them unused
    sizes = {"vocab_size": vocab_size, **SMALL, **extra, **settings}
    if kind == "distilbert":
        sizes = {DISTILBERT_KEYS.get(key, key): value for key, value in sizes.items()}
    if kind == "modernbert":
        special = ("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id")
        sizes = {**dict.fromkeys(special, 0), **sizes}
    config = getattr(hf, f"{prefix}Config")(**sizes)
    model = getattr(hf, f"{prefix}For{task}" if task else f"{prefix}Model")(config)
    randomize(model, seed)
    return model.eval()


def randomize(model: Any, seed: int) -> None:
    """Give all weights of a model random values of a fixed seed."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            wide = max(parameter.shape[-1], 24) if parameter.ndim == 2 else 0
            spread = 1 / wide**0.5 if wide else 0.2
            norm = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(torch.randn_like(parameter) * spread + float(norm))
