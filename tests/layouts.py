"""Folders laid out as published models are, made of the random weights in tests/golden.

Each builder makes one; ROWS says which models have that layout. What is expected of a folder comes
from the golden files, which sentence-transformers computed, and from a few lines of NumPy.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from conftest import GOLDEN, TEXTS
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from torch_files import legacy_file, zip_file

PACKAGE = "sentence_transformers.sparse_encoder.models"
NEW_PACKAGE = "sentence_transformers.sparse_encoder.modules"
POOLING = {"pooling_strategy": "max", "activation_function": "relu"}

Dense = NDArray[np.float32]


@dataclass(frozen=True)
class Expected:
    """What a folder makes of TEXTS, and how right that must be."""

    documents: Dense
    queries: Dense


def golden_weights(name: str) -> Dense:
    return load_file(GOLDEN / name / "expected.safetensors")["weights"]


def same(name: str) -> Expected:
    return Expected(golden_weights(name), golden_weights(name))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def copy_plain(name: str, folder: Path) -> None:
    """Copy a golden checkpoint without the files of sentence-transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (GOLDEN / name).glob("*"):
        if path.is_file() and path.name not in ("modules.json", "expected.safetensors"):
            if not path.name.startswith(("config_", "sentence_")):
                shutil.copy(path, folder)


def copy_full(name: str, folder: Path) -> None:
    shutil.copytree(GOLDEN / name, folder, dirs_exist_ok=True)
    (folder / "expected.safetensors").unlink()


def pickle_weights(folder: Path, legacy: bool = False, buffers: bool = True) -> None:
    """Put weights into pytorch_model.bin, with the buffer that older torch models saved."""
    tensors: dict[str, NDArray[Any]] = dict(load_file(folder / "model.safetensors"))
    if buffers:
        tensors["bert.embeddings.position_ids"] = np.arange(40)[None]
    write = legacy_file if legacy else zip_file
    (folder / "pytorch_model.bin").write_bytes(write(tensors))
    (folder / "model.safetensors").unlink()


def to_vocabulary(folder: Path) -> None:
    """Leave only vocab.txt of a word-piece tokenizer."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    terms = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{t}\n" for t, _ in terms), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    config = {"do_lower_case": True, "model_max_length": 40, "tokenizer_class": "BertTokenizer"}
    write_json(folder / "tokenizer_config.json", config)


def write_modules(folder: Path, *kinds: str, package: str = PACKAGE) -> None:
    """Write modules.json for a transformer at the root and what follows in folders of its own."""
    places = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds[1:], start=1))]
    steps = [
        {"idx": i, "name": str(i), "path": place, "type": f"{package}.{kind}"}
        for i, (kind, place) in enumerate(zip(kinds, places))
    ]
    write_json(folder / "modules.json", steps)


def token_weights(folder: Path) -> dict[str, float]:
    """Return a weight for each term that is not special, none for every seventh."""
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    return {
        term: round(0.25 + (term_id * 37 % 101) / 20, 3)
        for term, term_id in sorted(vocabulary.items(), key=lambda item: item[1])
        if term_id > 4 and term_id % 7
    }


def static_vectors(folder: Path, weights: dict[str, float]) -> Dense:
    """Look up the weights of the tokens of TEXTS, by the plain definition."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    vectors = np.zeros((len(TEXTS), tokenizer.get_vocab_size()), np.float32)
    for vector, text in zip(vectors, TEXTS):
        for token in tokenizer.encode(text, add_special_tokens=False).tokens[:40]:
            vector[tokenizer.token_to_id(token)] = weights.get(token, 0)
    return vectors


def as_array(folder: Path, weights: dict[str, float]) -> Dense:
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    array = np.zeros(len(vocabulary), np.float32)
    for term, weight in weights.items():
        array[vocabulary[term]] = weight
    return array


def write_router(
    folder: Path, query: list[str], document: list[str], package: str = PACKAGE, **change: Any
) -> None:
    """Write modules.json and router_config.json; steps are the names of their folders."""
    router = {"idx": 0, "name": "0", "path": "", "type": f"{package}.Router"}
    router["type"] = "sentence_transformers.models.Router" if package == PACKAGE else router["type"]
    write_json(folder / "modules.json", [router])
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    types = {
        step: f"{package}.{step.rpartition('_')[2] or 'MLMTransformer'}"
        for step in (*query, *document)
    }
    config = {
        "types": types,
        "structure": {"query": query, "document": document},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    write_json(folder / "router_config.json", config | change)


def write_static(folder: Path, source: Path, weights: Dense | None) -> None:
    """Write a SparseStaticEmbedding: its tokenizer, and its weights unless they are elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    write_json(folder / "config.json", {"frozen": True})
    if weights is not None:
        save_file({"weight": weights}, folder / "model.safetensors")


MLM, SPLADE, STATIC = "MLMTransformer", "SpladePooling", "SparseStaticEmbedding"
ROUTE = [f"document_0_{MLM}", f"document_1_{SPLADE}"]
ROUTE_AT_ROOT = ["", ROUTE[1]]


def static_queries(
    folder: Path, name: str, at_root: bool, package: str = PACKAGE, pickled: bool = False
) -> Expected:
    """Lay out a router with static queries; the document model at the root or not."""
    route = ROUTE_AT_ROOT if at_root else ROUTE
    home = folder / route[0]
    copy_plain(name, home)
    pooling = json.loads((GOLDEN / name / "1_SpladePooling" / "config.json").read_text())
    write_json(folder / ROUTE[1] / "config.json", pooling)
    query = f"query_0_{STATIC}"
    weights = token_weights(home)
    write_static(folder / query, home, as_array(home, weights))
    write_router(folder, [query], route, package)
    expected = Expected(golden_weights(name), static_vectors(home, weights))
    if pickled:
        pickle_weights(home)
    return expected


def plain(folder: Path) -> Expected:
    copy_plain("bert", folder)
    return same("bert")


def pickled(folder: Path) -> Expected:
    copy_full("bert", folder)
    pickle_weights(folder)
    return same("bert")


def new_class_names(folder: Path) -> Expected:
    """Lay out a model as sentence-transformers 6 names its classes."""
    copy_full("bert", folder)
    steps = [
        {
            "idx": 0,
            "name": "0",
            "path": "",
            "type": "sentence_transformers.base.modules.Transformer",
        },
        {"idx": 1, "name": "1", "path": f"1_{SPLADE}", "type": f"{NEW_PACKAGE}.{SPLADE}"},
    ]
    write_json(folder / "modules.json", steps)
    task = {"transformer_task": "fill-mask", "max_seq_length": 40}
    write_json(folder / "sentence_bert_config.json", task)
    return same("bert")


def splade_v2_max(folder: Path) -> Expected:
    copy_full("distilbert", folder)
    pickle_weights(folder, legacy=True, buffers=False)
    to_vocabulary(folder)
    return same("distilbert")


def efficient_pair(folder: Path) -> Expected:
    """Lay out two encoders, that of queries in a folder of its own and smaller."""
    copy_plain("distilbert", folder)
    pickle_weights(folder, buffers=False)
    query = [f"query_0_{MLM}", f"query_1_{SPLADE}"]
    copy_plain("bert", folder / query[0])
    write_json(folder / query[1] / "config.json", POOLING)
    log1p = POOLING | {"activation_function": "log1p_relu"}
    write_json(folder / ROUTE[1] / "config.json", log1p)
    write_router(folder, query, ROUTE_AT_ROOT)
    return Expected(golden_weights("distilbert"), golden_weights("bert"))


def lexical(folder: Path) -> Expected:
    """Lay out queries whose vectors keep only the terms of the text itself."""
    expected = static_queries(folder, "bert", at_root=True)
    query = [f"query_0_{MLM}", f"query_1_{SPLADE}", f"query_2_{STATIC}"]
    copy_plain("bert", folder / query[0])
    write_json(folder / query[1] / "config.json", POOLING)
    (folder / f"query_0_{STATIC}").rename(folder / query[2])
    write_router(folder, query, ROUTE_AT_ROOT)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(40)
    mask = np.zeros_like(expected.documents)
    for row, text in zip(mask, TEXTS):
        row[tokenizer.encode(text).ids] = 1
    weights = as_array(folder, token_weights(folder))
    return Expected(expected.documents, expected.documents * mask * weights)


def untied_pickle(folder: Path) -> Expected:
    copy_full("bert-untied", folder)
    shutil.copy(folder / "model.safetensors", folder / "kept.safetensors")
    pickle_weights(folder)
    (folder / "kept.safetensors").rename(folder / "model.safetensors")  # some have both
    return same("bert-untied")


def table_of_weights(folder: Path) -> Expected:
    """Lay out a plain model with idf.json beside it."""
    copy_plain("bert", folder)
    weights = token_weights(folder)
    write_json(folder / "idf.json", weights)
    return Expected(golden_weights("bert"), static_vectors(folder, weights))


def lines_of_weights(folder: Path) -> Expected:
    copy_plain("distilbert-untied", folder)
    weights = token_weights(folder)
    lines = "".join(f"{term}\t{weight}\n" for term, weight in weights.items())
    (folder / "query_token_weights.txt").write_text(lines, encoding="utf-8")
    return Expected(golden_weights("distilbert-untied"), static_vectors(folder, weights))


def idf_module(folder: Path) -> Expected:
    """Lay out a router whose query step has only the name of a table at the root."""
    copy_plain("bert", folder)
    write_json(folder / ROUTE[1] / "config.json", POOLING)
    query = f"query_0_{STATIC}"
    write_static(folder / query, folder, None)
    write_json(folder / query / "config.json", {"frozen": True, "path": "idf.json"})
    weights = token_weights(folder)
    write_json(folder / "idf.json", weights)
    write_router(folder, [query], ROUTE_AT_ROOT)
    return Expected(golden_weights("bert"), static_vectors(folder, weights))


def unnamed_root(folder: Path) -> Expected:
    """Lay out a router whose step at the root is called as if it had a folder."""
    expected = static_queries(folder, "bert", at_root=True)
    write_router(folder, [f"query_0_{STATIC}"], ROUTE)
    return expected


def token_layer(folder: Path) -> Expected:
    """Lay out an encoder without a head, and a layer that weighs tokens, as bge-m3 has them."""
    name = "xlm-roberta"
    copy_plain(name, folder)
    state = load_file(GOLDEN / name / "expected.safetensors")
    encoder = read_tensors(folder / "model.safetensors")
    bare = {
        key.removeprefix("roberta."): tensor
        for key, tensor in encoder.items()
        if not key.startswith("lm_head")
    }
    (folder / "pytorch_model.bin").write_bytes(zip_file(bare))
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["XLMRobertaModel"]})
    layer = np.random.default_rng(5).standard_normal((1, 16)).astype(np.float16)
    bias = np.array([0.25], np.float16)
    (folder / "sparse_linear.pt").write_bytes(zip_file({"weight": layer, "bias": bias}))
    (folder / "colbert_linear.pt").write_bytes(b"not looked at")
    write_modules(
        folder, "Transformer", "Pooling", "Normalize", package="sentence_transformers.models"
    )
    ids, mask = state["input_ids"], state["attention_mask"] == 1
    weights = np.maximum(state["hidden_states"] @ layer[0].astype(np.float32) + bias[0], 0)
    dense = np.zeros((len(ids), state["weights"].shape[1]), np.float32)
    for row in range(len(ids)):
        for token, weight in zip(ids[row][mask[row]], weights[row][mask[row]]):
            if token > 3:
                dense[row, token] = max(dense[row, token], weight)
    return Expected(dense, dense)


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read bfloat16 too, which the library's NumPy side does not."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + at for at in entry["data_offsets"])
        upper = np.frombuffer(content[start:end], "<u2").astype(np.uint32) << 16
        tensors[name] = upper.view(np.float32).reshape(entry["shape"])
    return tensors


Builder = Callable[[Path], Expected]


def golden(name: str) -> Builder:
    def build(folder: Path) -> Expected:
        copy_full(name, folder)
        return same(name)

    return build


def with_static(name: str, at_root: bool = False, **options: Any) -> Builder:
    return lambda folder: static_queries(folder, name, at_root, **options)


ROWS: dict[str, Builder] = {
    "rasyosef/splade-tiny, -mini, -small": golden("bert-float16"),  # gamma and beta
    "naver/splade-v3": pickled,
    "naver/splade-v3-distilbert": splade_v2_max,
    "naver/splade-v3-doc": with_static("bert", at_root=True, pickled=True),
    "naver/splade-v3-lexical": lexical,
    "naver/splade-cocondenser-ensembledistil": pickled,
    "naver/splade_v2_max": splade_v2_max,
    "naver/efficient-splade-V-large-doc": efficient_pair,
    "naver/efficient-splade-V-large-query": efficient_pair,
    "opensearch v1": untied_pickle,
    "opensearch v2-distill": golden("distilbert"),
    "opensearch doc-v1": idf_module,
    "opensearch doc-v2-distill": lines_of_weights,
    "opensearch doc-v2-mini": with_static("bert", at_root=True),
    "opensearch doc-v3-distill": with_static("distilbert", at_root=True),  # log1p_relu
    "opensearch doc-v3-gte": with_static("gte", at_root=True, package=NEW_PACKAGE),
    "opensearch multilingual-v1": table_of_weights,
    "prithivida/Splade_PP_en_v2": plain,
    "ibm-granite/granite-embedding-30m-sparse": golden("xlm-roberta"),  # bfloat16
    "BAAI/bge-m3": token_layer,
    "yjoonjang/splade-ko-v1": golden("modernbert"),
    "yjoonjang/inference-free-splade-ko-v1": with_static("modernbert"),
    "Shuu12121/Code-SparseEncoder-Finch": golden("modernbert-biased"),
    "sparse-encoder-testing/splade-bert-tiny-nq": new_class_names,
    "sparse-encoder-testing/inference-free-splade-bert-tiny-nq": with_static("bert"),
    "any RoBERTa with vocab.json and merges.txt": golden("roberta"),
    "any ALBERT": golden("albert"),
    "a router without its first folder": unnamed_root,
}
