"""Compiling every kernel ahead of time, by using each once on a model of a few weights."""

import time
from dataclasses import replace

import numpy as np

from minisplade.errors import InputError
from minisplade.index import Index
from minisplade.index.search import SearchOptions, rank_found, search_parts
from minisplade.models import MaskedLanguageModel
from minisplade.models.bert import BertConfig
from minisplade.models.names import param_shapes
from minisplade.runtime import choose_kernel_path

TOY = BertConfig(
    vocab_size=64,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=16,
    max_positions=8,
    num_token_types=1,
    layer_norm_eps=1e-12,
)
ROTARY_TOY = replace(TOY, pre_norm=True, gated=True, rotary_bases=(1e4,), windows=(4,))


def compile_kernels() -> float:
    """Run all that is compiled once, so that it is on disk; returns the seconds it took.

    Raises InputError where Numba is missing, so that there is nothing to compile.
    """
    path = choose_kernel_path()
    if path == "reference":
        raise InputError("there is nothing to compile: Numba is not installed, or not to be used")
    from minisplade.models.packed import chosen_logits, encode, pack_model

    start = time.perf_counter()
    rng = np.random.default_rng(0)
    sequences = [np.arange(8, dtype=np.int32)]
    for config in (TOY, ROTARY_TOY):
        params = {
            name: rng.standard_normal(shape).astype(np.float32)
            for name, shape in param_shapes(config).items()
        }
        model = MaskedLanguageModel(config, params, {})
        for screened in {False, path == "screened"}:
            packed = pack_model(model, screened)
            for strategy in ("max", "sum"):
                vectors = encode(packed, sequences, strategy, "relu", 1, 1 << 30)
            chosen_logits(packed, sequences[0], np.arange(8, dtype=np.int32))
    index = Index.from_vectors(vectors[np.zeros(100, dtype=np.int64)])
    parts, query, options = index.snapshot.parts, vectors[0], SearchOptions()
    rank_found(parts, query, options, [search_parts(parts, query, options)])
    return time.perf_counter() - start
