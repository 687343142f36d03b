"""What `models inspect` says of folders that can be used, and of those that cannot."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN
from layouts import POOLING, ROWS, copy_full, copy_plain, write_json, write_modules
from safetensors.numpy import load_file, save_file

from minisplade import SparseEncoder
from minisplade.inspection import inspect_model
from minisplade.runtime import choose_kernel_path

FASTEST = choose_kernel_path()


@pytest.mark.parametrize("row", ROWS)
def test_published_layouts_can_be_used(row: str, tmp_path: Path) -> None:
    ROWS[row](tmp_path)
    report = inspect_model(tmp_path)
    assert report["use"] == "SparseEncoder"
    encoder = SparseEncoder(tmp_path)
    routed = encoder.query_route is not encoder.document_route
    assert ("queries" in report) == routed
    path = report["documents: kernel path" if routed else "kernel path"]
    assert path.startswith(f"{encoder.kernel_path}: ")
    assert ("do not know this architecture" in path) == (encoder.kernel_path != FASTEST)


def test_a_model_in_full(tmp_path: Path) -> None:
    copy_full("bert", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {"bert.pooler.dense.bias": tensors["bert.embeddings.LayerNorm.bias"]}
    extra |= {"cls.seq_relationship.bias": extra["bert.pooler.dense.bias"]}
    extra |= {"strange": extra["bert.pooler.dense.bias"]}
    save_file(tensors | extra, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    (tmp_path / "modeling_own.py").write_text("raise SystemExit")
    (tmp_path / "onnx").mkdir()
    config = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", config | {"auto_map": {"AutoModel": "modeling_own.M"}})
    report = inspect_model(tmp_path)
    count = sum(tensor.size for tensor in tensors.values())
    assert report["architecture"] == "bert, BertForMaskedLM"
    assert report["sizes"] == "3 layers of 24, 4 heads, feed-forward 40, 90 terms, 40 positions"
    assert report["weights"] == (
        f"{count:,} in model.safetensors, F32, decoder tied to the embeddings"
    )
    assert report["documents"] == "max over tokens of log(1 + relu) of the logits"
    assert report["tokenizer"] == "WordPiece, 90 tokens, tokenizer.json, texts cut at 40 tokens"
    assert report["settings"] == "similarity dot, no prompts"
    assert report["ignored"] == [
        "auto_map in config.json: code of a model's own is never run",
        "1 tensor: strange is unknown",
        "1 tensor: the pooler is for other uses of the model",
        "1 tensor: which sentence comes first is not asked",
        "pytorch_model.bin: model.safetensors has the same weights",
        "onnx: another form of the same weights",
        "modeling_own.py: code of a model's own is never run",
    ]


def test_a_cross_encoder() -> None:
    report = inspect_model(GOLDEN / "pairs" / "distilbert")
    assert report["use"] == "CrossEncoder"
    assert report["pairs"] == "3 score(s) for each, cut at 40 tokens"
    assert report["architecture"] == "distilbert, DistilBertForSequenceClassification"


def splade_code(folder: Path) -> None:
    """Lay out what stands for naver/splade-code-06B: another architecture, and code of its own."""
    own = {"auto_map": {"AutoModel": "splade.Splade"}, "architectures": ["Splade"]}
    write_json(folder / "config.json", {"model_type": "qwen3", **own})
    (folder / "splade.py").write_text("raise SystemExit")


def japanese(folder: Path) -> None:
    """Lay out what stands for hotchpotch/japanese-splade-v2: words found by another program."""
    copy_plain("bert", folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", encoding="utf-8")
    config = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}
    write_json(folder / "tokenizer_config.json", config)


def mean_pooling(folder: Path) -> None:
    """Lay out what stands for UBC-SLIME/splade-base-mean: a pooling that is code of its own."""
    copy_plain("modernbert", folder)
    write_modules(folder, "MLMTransformer", "LightSpladePooling", package="light_splade")
    mean = POOLING | {"pooling_strategy": "mean"}
    write_json(folder / "1_LightSpladePooling" / "config.json", mean)


def dense(folder: Path) -> None:
    copy_plain("bert", folder)
    write_modules(folder, "Transformer", "Pooling", package="sentence_transformers.models")


def sentence_piece(folder: Path) -> None:
    copy_plain("xlm-roberta", folder)
    (folder / "tokenizer.json").unlink()
    (folder / "sentencepiece.bpe.model").write_bytes(b"")


OUT_OF_SCOPE = {
    "naver/splade-code-06B": (splade_code, "model_type 'qwen3' is not supported; supported: bert"),
    "hotchpotch/japanese-splade-v2": (japanese, "BertJapaneseTokenizer, which finds words with M"),
    "UBC-SLIME/splade-base-mean": (mean_pooling, "lists MLMTransformer, LightSpladePooling; supp"),
    "a dense model": (dense, "lists Transformer, Pooling; supported are"),
    "XLM-RoBERTa without tokenizer.json": (sentence_piece, "SentencePiece model alone is not read"),
    "nothing": (lambda folder: None, "config.json does not exist"),
}


@pytest.mark.parametrize("row", OUT_OF_SCOPE)
def test_what_is_out_of_scope_is_told(row: str, tmp_path: Path) -> None:
    build: Any
    build, expected = OUT_OF_SCOPE[row]
    build(tmp_path)
    report = inspect_model(tmp_path)
    assert report["use"].startswith("none, because ")
    assert expected in report["use"]
    if row == "naver/splade-code-06B":
        assert report["ignored"] == [
            "auto_map in config.json: code of a model's own is never run",
            "splade.py: code of a model's own is never run",
        ]
