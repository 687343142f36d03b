"""Model files: small random checkpoints, and each way in which a file can be wrong."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch_files import dict_of, legacy_file, program, zip_file
from torch_files import tensor as pickled_tensor

from minisplade.checkpoint import open_checkpoint, read_json, to_float32
from minisplade.errors import CheckpointError
from minisplade.models import load_model

Tensors = dict[str, NDArray[Any]]

V, D, F, P = 11, 4, 6, 9
BERT = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": F,
    "max_position_embeddings": P,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
DISTILBERT = {
    "model_type": "distilbert",
    "architectures": ["DistilBertForMaskedLM"],
    "vocab_size": V,
    "dim": D,
    "n_layers": 1,
    "n_heads": 2,
    "hidden_dim": F,
    "max_position_embeddings": P,
    "activation": "gelu",
}
WORD = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
NORM = "bert.embeddings.LayerNorm"
DENSE = "bert.encoder.layer.0.intermediate.dense.weight"


def bert_tensors() -> Tensors:
    """Return a tied BERT of one layer under the names that transformers writes."""
    layer = "bert.encoder.layer.0"
    shapes: dict[str, tuple[int, ...]] = {
        WORD: (V, D),
        "bert.embeddings.position_embeddings.weight": (P, D),
        "bert.embeddings.token_type_embeddings.weight": (2, D),
        "cls.predictions.bias": (V,),
    }
    linears = {
        f"{layer}.attention.self.query": (D, D),
        f"{layer}.attention.self.key": (D, D),
        f"{layer}.attention.self.value": (D, D),
        f"{layer}.attention.output.dense": (D, D),
        f"{layer}.intermediate.dense": (F, D),
        f"{layer}.output.dense": (D, F),
        "cls.predictions.transform.dense": (D, D),
    }
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    norms = NORM, f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"
    for name in (*norms, "cls.predictions.transform.LayerNorm"):
        shapes |= {f"{name}.weight": (D,), f"{name}.bias": (D,)}
    return random_tensors(shapes)


def distilbert_tensors() -> Tensors:
    """Return a tied DistilBERT of one layer under the names that transformers writes."""
    layer = "distilbert.transformer.layer.0"
    shapes: dict[str, tuple[int, ...]] = {
        "distilbert.embeddings.word_embeddings.weight": (V, D),
        "distilbert.embeddings.position_embeddings.weight": (P, D),
        "vocab_projector.bias": (V,),
    }
    linears = {f"{layer}.attention.{role}_lin": (D, D) for role in ("q", "k", "v", "out")}
    linears |= {f"{layer}.ffn.lin1": (F, D), f"{layer}.ffn.lin2": (D, F), "vocab_transform": (D, D)}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    norms = "distilbert.embeddings.LayerNorm", f"{layer}.sa_layer_norm", "vocab_layer_norm"
    for name in (*norms, f"{layer}.output_layer_norm"):
        shapes |= {f"{name}.weight": (D,), f"{name}.bias": (D,)}
    return random_tensors(shapes)


def random_tensors(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    rng = np.random.default_rng(7)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder: Path, tensors: Tensors, config: dict[str, Any] | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps(BERT if config is None else config))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def logits(folder: Path) -> NDArray[np.float32]:
    """Run a model on a few ids: what counts is that the right weights end up in place."""
    ids = np.array([[1, 5, 2, 10], [3, 3, 0, 0]], np.int32)
    return load_model(folder).logits(ids, ids > 0)


def test_bert_and_distilbert_load(tmp_path: Path) -> None:
    assert logits(write(tmp_path, bert_tensors())).shape == (2, 4, V)
    write(tmp_path, distilbert_tensors(), DISTILBERT)
    params = load_model(tmp_path).params
    stored = distilbert_tensors()["distilbert.transformer.layer.0.attention.k_lin.weight"]
    np.testing.assert_array_equal(params["layers.0.attention.key.weight"], stored)


def test_extra_tensors_are_nobodys_weights(tmp_path: Path) -> None:
    expected = logits(write(tmp_path, bert_tensors()))
    extra: Tensors = {
        "bert.embeddings.position_ids": np.arange(P)[None],
        "bert.pooler.dense.weight": np.full((D, D), np.nan, np.float32),
        "wide": np.zeros(3, np.float64),
        "complex": np.zeros(3, np.complex64),
    }
    np.testing.assert_array_equal(logits(write(tmp_path, bert_tensors() | extra)), expected)


def changed(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Tensors:
    tensors = bert_tensors()
    tensors[name] = change(tensors[name])
    return tensors


def with_one(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(tensor: NDArray[Any]) -> NDArray[Any]:
        tensor.flat[-1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (DENSE, lambda t: t.T.copy(), rf"{DENSE} in .* has shape \(4, 6\); .* asks for \(6, 4\)"),
        (WORD, lambda t: t[:-1], rf"{WORD} in .* has shape \(10, 4\); .* asks for \(11, 4\)"),
        (DENSE, with_one(np.nan), rf"{DENSE} in .* holds NaN or infinite weights"),
        (DENSE, with_one(-np.inf), rf"{DENSE} in .* holds NaN or infinite weights"),
        (DENSE, lambda t: t.astype(np.int64), rf"{DENSE} is of type I64; expected a floating-"),
        (DENSE, lambda t: t.astype(np.int8), rf"{DENSE} is of type I8; expected a floating-"),
        (
            DENSE,
            lambda t: np.full(t.shape, 1e300),
            rf"{DENSE} in .* holds NaN or infinite weights",
        ),
    ],
)
def test_wrong_tensors_are_refused_by_name(
    tmp_path: Path, name: str, change: Any, expected: str
) -> None:
    write(tmp_path, changed(name, change))
    with pytest.raises(CheckpointError, match=expected):
        load_model(tmp_path)


@pytest.mark.parametrize("name", sorted(bert_tensors()))
def test_missing_tensors_are_named(tmp_path: Path, name: str) -> None:
    tensors = bert_tensors()
    del tensors[name]
    write(tmp_path, tensors)
    with pytest.raises(CheckpointError, match=f"has no tensor {name}; its config asks for it"):
        load_model(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_cut_short(tmp_path: Path, size: int) -> None:
    path = write(tmp_path, bert_tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="model.safetensors is not .* cut short or damaged"):
        load_model(tmp_path)


def widened(bits: int, exponent_bits: int, mantissa_bits: int) -> float:
    """Read a floating-point number bit by bit, as IEEE 754 defines it."""
    sign = -1.0 if bits >> (exponent_bits + mantissa_bits) else 1.0
    exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1)
    mantissa = bits & ((1 << mantissa_bits) - 1)
    bias = (1 << (exponent_bits - 1)) - 1
    if exponent == (1 << exponent_bits) - 1:
        return float("nan") if mantissa else sign * float("inf")
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - mantissa_bits)
    return sign * (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)


@pytest.mark.parametrize(
    ("dtype", "view", "exponent_bits", "mantissa_bits"),
    [("F16", np.float16, 5, 10), ("BF16", np.uint16, 8, 7), ("F8_E5M2", np.uint8, 5, 2)],
)
def test_half_precision_is_widened_exactly(
    dtype: str, view: Any, exponent_bits: int, mantissa_bits: int
) -> None:
    bits_of = 1 + exponent_bits + mantissa_bits
    every = np.arange(1 << bits_of, dtype=f"u{bits_of // 8}")
    expected = [widened(int(bits), exponent_bits, mantissa_bits) for bits in every]
    wide = to_float32(every.view(view), dtype)
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide, np.array(expected, np.float32))
    assert np.signbit(wide[1 << bits_of - 1])  # -0.0 keeps its sign


def test_float8_with_four_exponent_bits_is_widened_exactly() -> None:
    every = np.arange(256, dtype=np.uint8)
    # The type has no infinities: the highest exponent is one like the others.
    expected = [widened(int(bits), 4, 3) if bits & 0x78 < 0x78 else None for bits in every]
    for bits, value in enumerate(to_float32(every, "F8_E4M3")):
        if bits & 0x7F == 0x7F:
            assert np.isnan(value)
        else:
            sign = -1 if bits & 0x80 else 1
            highest = sign * (1 + (bits & 7) / 8) * 256
            assert value == (highest if expected[bits] is None else expected[bits])
    assert to_float32(every, "F8_E4M3")[0x7E] == 448  # the largest, by the paper


def test_float64_is_rounded(tmp_path: Path) -> None:
    tensors = {name: t.astype(np.float64) + 1e-12 for name, t in bert_tensors().items()}
    loaded = load_model(write(tmp_path, tensors)).params["embeddings.word.weight"]
    np.testing.assert_array_equal(loaded, tensors[WORD].astype(np.float32))


def test_bfloat16_from_a_file(tmp_path: Path) -> None:
    # The numpy side of safetensors cannot write bfloat16, so the header is made by hand.
    tensors = bert_tensors()
    header, content = {}, b""
    for name, tensor in tensors.items():
        upper = b"".join(struct.pack("<f", number)[2:] for number in tensor.ravel())
        span = [len(content), len(content) + len(upper)]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": span}
        content += upper
    text = json.dumps(header).encode()
    write(tmp_path, {})
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    loaded = load_model(tmp_path).params["embeddings.word.weight"]
    truncated = (tensors[WORD].view(np.uint32) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(loaded, truncated)


def test_float16_from_a_file(tmp_path: Path) -> None:
    half = {name: tensor.astype(np.float16) for name, tensor in bert_tensors().items()}
    write(tmp_path, half)
    loaded = load_model(tmp_path).params["embeddings.word.weight"]
    assert loaded.dtype == np.float32
    assert loaded.tolist() == half[WORD].tolist()


def write_shards(folder: Path, weight_map: Any) -> None:
    (folder / "config.json").write_text(json.dumps(BERT))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_sharded_files(tmp_path: Path) -> None:
    tensors = bert_tensors()
    names = list(tensors)
    (tmp_path / "whole").mkdir()
    expected = logits(write(tmp_path / "whole", tensors))
    weight_map: dict[str, str] = {}
    for number, chosen in enumerate([names[::2], names[1::2]], start=1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in chosen}, tmp_path / shard)
        weight_map |= dict.fromkeys(chosen, shard)
    write_shards(tmp_path, weight_map)
    np.testing.assert_array_equal(logits(tmp_path), expected)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002.safetensors does not exist"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "expected"),
    [
        ({WORD: "../secret.safetensors"}, "names a file outside its folder"),
        ({WORD: "/etc/secret.safetensors"}, "names a file outside its folder"),
        ({WORD: ".."}, "names a file outside its folder"),
        ({WORD: ""}, "names a file outside its folder"),
        ({}, "has no weight_map"),
        (["model-1.safetensors"], "has no weight_map"),
        (None, "has no weight_map"),
    ],
)
def test_bad_shard_indexes(tmp_path: Path, weight_map: Any, expected: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(bert_tensors(), tmp_path / "secret.safetensors")
    write_shards(folder, weight_map)
    with pytest.raises(CheckpointError, match=expected):
        load_model(folder)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    with pytest.raises(CheckpointError, match="has no weights: none of model.safetensors, .*bin"):
        load_model(tmp_path)


@pytest.mark.parametrize("write_file", [zip_file, legacy_file])
def test_pickled_weights(tmp_path: Path, write_file: Any) -> None:
    expected = logits(write(tmp_path, bert_tensors()))
    content = write_file(bert_tensors() | {"bert.embeddings.position_ids": np.arange(P)[None]})
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    (tmp_path / "model.safetensors").unlink()
    np.testing.assert_array_equal(logits(tmp_path), expected)


def test_pickled_shards_and_what_comes_first(tmp_path: Path) -> None:
    tensors = bert_tensors()
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number, chosen in enumerate([names[::2], names[1::2]]):
        (tmp_path / f"{number}.bin").write_bytes(zip_file({n: tensors[n] for n in chosen}))
        weight_map |= dict.fromkeys(chosen, f"{number}.bin")
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    sharded = logits(tmp_path)
    other = {name: tensor * 2 for name, tensor in tensors.items()}
    doubled = logits(write(tmp_path, other))
    assert (doubled != sharded).any()
    (tmp_path / "model.safetensors").unlink()
    np.testing.assert_array_equal(logits(tmp_path), sharded)
    np.testing.assert_array_equal(logits(write(tmp_path, tensors)), sharded)


def test_a_decoder_that_shares_its_memory_is_tied(tmp_path: Path) -> None:
    """torch.save writes a tied decoder by name, as a second view of the embeddings' numbers."""
    tensors = bert_tensors()
    values = {name: pickled_tensor("0", V * D, (V, D), (D, 1)) for name in (WORD, DECODER)}
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    rest = {name: array for name, array in tensors.items() if name != WORD}
    for key, (name, array) in enumerate(rest.items(), start=1):
        steps = tuple(stride // 4 for stride in array.strides)
        values[name] = pickled_tensor(str(key), array.size, array.shape, steps)
    content = zip_file({WORD: tensors[WORD]} | rest, program(dict_of(values)))
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    assert load_model(tmp_path).is_tied


def test_legacy_names_of_layer_norm(tmp_path: Path) -> None:
    expected = logits(write(tmp_path, bert_tensors()))
    legacy = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in bert_tensors().items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in legacy) == 8
    np.testing.assert_array_equal(logits(write(tmp_path, legacy)), expected)
    # Other tensors may be called gamma.
    assert "x.gamma" in open_checkpoint(write(tmp_path, {"x.gamma": np.zeros(1, np.float32)}))


def test_current_names_win_over_legacy_ones(tmp_path: Path) -> None:
    for names in (("gamma", "weight"), ("weight", "gamma")):
        tensors = {f"x.LayerNorm.{name}": np.array([len(name)], np.float32) for name in names}
        checkpoint = open_checkpoint(write(tmp_path, tensors))
        assert checkpoint.weight("x.LayerNorm.weight", (1,)).tolist() == [len("weight")]


HEADS = [
    (BERT, bert_tensors, WORD, "cls.predictions.decoder", "cls.predictions.bias"),
    (
        DISTILBERT,
        distilbert_tensors,
        "distilbert.embeddings.word_embeddings.weight",
        "vocab_projector",
        "vocab_projector.bias",
    ),
]


@pytest.mark.parametrize(("config", "make", "word", "decoder", "bias"), HEADS)
def test_the_file_decides_between_tied_and_untied(
    tmp_path: Path, config: dict[str, Any], make: Any, word: str, decoder: str, bias: str
) -> None:
    tensors = make()
    model = load_model(write(tmp_path, tensors, config))
    assert model.is_tied
    np.testing.assert_array_equal(model.params["head.decoder.weight"], tensors[word])
    np.testing.assert_array_equal(model.params["head.decoder.bias"], tensors[bias])

    own = tensors | {f"{decoder}.weight": tensors[word][::-1].copy()}
    for tie in (True, False):
        model = load_model(write(tmp_path, own, config | {"tie_word_embeddings": tie}))
        assert not model.is_tied
        np.testing.assert_array_equal(model.params["head.decoder.weight"], tensors[word][::-1])

    write(tmp_path, tensors, config | {"tie_word_embeddings": False})
    with pytest.raises(CheckpointError, match=f"has no tensor {decoder}.weight"):
        load_model(tmp_path)


def test_the_decoders_own_bias_wins(tmp_path: Path) -> None:
    own = np.arange(V, dtype=np.float32)
    tensors = bert_tensors() | {"cls.predictions.decoder.bias": own}
    params = load_model(write(tmp_path, tensors)).params
    np.testing.assert_array_equal(params["head.decoder.bias"], own)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"vocab_size": None}, "config.json lacks vocab_size"),
        ({"hidden_size": None, "num_hidden_layers": None}, "lacks hidden_size, num_hidden_layers"),
        ({"vocab_size": "11"}, "gives vocab_size as '11'; expected int"),
        ({"vocab_size": 11.0}, "gives vocab_size as 11.0; expected int"),
        ({"num_hidden_layers": True}, "gives num_layers as True; expected int"),
        ({"intermediate_size": -6}, "gives intermediate_size as -6; expected int, 0 or more"),
        ({"layer_norm_eps": "tiny"}, "gives layer_norm_eps as 'tiny'; expected int or float"),
        ({"layer_norm_eps": float("nan")}, "gives layer_norm_eps as nan"),
        ({"model_type": ["bert"]}, "model_type .* is not supported"),
        ({"architectures": 5}, "is of architectures 5"),
        ({"num_attention_heads": 3}, "hidden size 4 cannot be split into 3 heads"),
        ({"num_attention_heads": 0}, "hidden size 4 cannot be split into 0 heads"),
        ({"model_type": "t5"}, "model_type 't5' is not supported; supported: bert, distilbert"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"architectures": ["BertModel"]}, "needs the masked-language-model head of a BertFor"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'; supported is 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "supported is 'absolute'"),
        ({"is_decoder": True}, "is_decoder True; supported is False"),
    ],
)
def test_config_that_is_not_supported(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    write(tmp_path, bert_tensors(), BERT | change)
    with pytest.raises(CheckpointError, match=expected):
        load_model(tmp_path)


def test_older_configs_leave_some_keys_out(tmp_path: Path) -> None:
    expected = logits(write(tmp_path, bert_tensors()))
    left_out = ("layer_norm_eps", "type_vocab_size", "architectures", "hidden_act")
    older = {key: value for key, value in BERT.items() if key not in left_out}
    np.testing.assert_array_equal(logits(write(tmp_path, bert_tensors(), older)), expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "cannot be read as JSON"),
        (b"{'vocab_size': 1}", "cannot be read as JSON"),
        (b'{"a": "\xff"}', "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "holds a list; expected a JSON object"),
        (b"null", "holds a NoneType; expected a JSON object"),
    ],
)
def test_json_files(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"config.json {expected}"):
        read_json(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="none does not exist"):
        read_json(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        read_json(tmp_path)
