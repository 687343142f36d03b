"""Write tests/golden: small checkpoints and what the reference implementation makes of them.

Needs torch, transformers and sentence-transformers: `make golden` runs it in the environment of
`make parity`. The checkpoints are random, with large weights, so that a mistake in any layer shows.
"""

import json
import shutil
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from random_models import random_model
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SparseEncoder
from sentence_transformers.sparse_encoder.models import MLMTransformer, SpladePooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = [
    "",
    "a",
    "the cat sat on the mat",
    "Sphinx of black quartz, judge my vow!",
    "the five boxing wizards jump quickly " * 9,  # longer than the models can take
    "naïve café",
]
REAL_TEXTS = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "how many tablespoons of garlic powder are in an ounce",
    "",
    " ",
    "a\0b",
    "\N{GRINNING FACE} an emoji, and a word in 日本語",
    "x" * 150,
    "Ünïcödé — dashes… “quotes”",
    "Inverted indexes list, for every term, the documents that contain it.",
    "def add(a, b): return a + b  # 42 lines of code",
    "water boils at 100 degrees celsius and freezes at 0 " * 70,  # cut at 512 tokens
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Build a word-piece tokenizer over single letters, frequent pairs and a few words."""
    words = ["the", "cat", "sat", "mat", "on", "black", "judge", "quick", "##ly", "wizard", "##s"]
    pairs = [a + b for a in "aeiou" for b in "nrst"]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *LETTERS, *",.!"]
    pieces += [f"##{letter}" for letter in LETTERS] + [f"##{pair}" for pair in pairs]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=40,
    )


def make_model(kind: str, vocab_size: int, tied: bool, seed: int) -> Any:
    """Return a masked-language model with seeded random weights, biases and norms included."""
    torch.manual_seed(seed)
    if kind == "bert":
        config: Any = BertConfig(
            vocab_size=vocab_size,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=40,
            max_position_embeddings=40,
            tie_word_embeddings=tied,
        )
        model: Any = BertForMaskedLM(config)
    else:
        config = DistilBertConfig(
            vocab_size=vocab_size,
            dim=20,
            n_layers=2,
            n_heads=2,
            hidden_dim=36,
            max_position_embeddings=40,
            tie_word_embeddings=tied,
        )
        model = DistilBertForMaskedLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.3 if parameter.ndim == 2 else 0.2
            centre = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            parameter.copy_(torch.randn_like(parameter) * spread + centre)
    return model.eval()


def write_checkpoint(folder: Path, kind: str, **options: Any) -> None:
    """Save one sentence-transformers folder and the reference's outputs beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = make_tokenizer()
    model = make_model(kind, len(tokenizer), options.get("tied", True), options.get("seed", 0))
    plain = folder / "plain"
    model.to(options.get("dtype", torch.float32)).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    pooling = SpladePooling(options.get("strategy", "max"), options.get("activation", "relu"))
    modules = [MLMTransformer(str(plain), model_kwargs={"dtype": torch.float32}), pooling]
    encoder = SparseEncoder(modules=modules, device="cpu")
    encoder.save_pretrained(str(folder), create_model_card=False)
    # Files as they are after training in another precision or sharding, not as re-saved.
    (folder / "model.safetensors").unlink()
    for path in plain.glob("model*"):
        shutil.copy(path, folder)
    shutil.rmtree(plain)
    if options.get("legacy"):
        rename_to_legacy(folder / "model.safetensors")
    save_file(reference_outputs(encoder, TEXTS), folder / "expected.safetensors")


TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_SIZES = {**TINY, "intermediate_size": 24}


def write_small(folder: Path, kind: str, tokenizer: Any = None, **options: Any) -> None:
    """Save a smaller model of another architecture, with layers of the shortest texts only."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = tokenizer or make_tokenizer()
    settings: dict[str, Any] = {**TINY_SIZES, **options.get("settings", {})}
    model = random_model(kind, len(tokenizer), options.get("seed", 0), **settings)
    plain = folder / "plain"
    model.to(options.get("dtype", torch.float32)).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    pooling = SpladePooling("max", options.get("activation", "relu"))
    modules = [MLMTransformer(str(plain), model_kwargs={"dtype": torch.float32}), pooling]
    encoder = SparseEncoder(modules=modules, device="cpu")
    encoder.save_pretrained(str(folder), create_model_card=False)
    shutil.move(plain / "model.safetensors", folder / "model.safetensors")
    shutil.rmtree(plain)
    save_file(reference_outputs(encoder, TEXTS, layers_of=3), folder / "expected.safetensors")


def make_byte_pair_tokenizer() -> RobertaTokenizer:
    """Build a byte-level tokenizer as RoBERTa's over the letters of TEXTS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=95, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, LETTERS, LETTERS.upper()], trainer)
    parts = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in parts["merges"]]
    return RobertaTokenizer(vocab=parts["vocab"], merges=merges, model_max_length=40)


def write_roberta(folder: Path) -> None:
    """Write a RoBERTa as older repositories have it: vocabulary and merges, a pickle, no limit."""
    tokenizer = make_byte_pair_tokenizer()
    write_small(folder, "roberta", tokenizer, seed=6)
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    parts = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(parts["vocab"]), encoding="utf-8")
    merges = "".join(f"{a} {b}\n" for a, b in parts["merges"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    config = {"model_max_length": int(1e30), "tokenizer_class": "RobertaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "sentence_bert_config.json").rename(folder / "sentence_roberta_config.json")
    (folder / "sentence_roberta_config.json").write_text('{"do_lower_case": false}')
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).unlink()


def write_gte(folder: Path) -> None:
    """Write a GTE under the names of its own files, which transformers' class knows too."""
    write_small(folder, "gte", seed=9, activation="log1p_relu")
    tensors = load_file(folder / "model.safetensors")
    own = {name.replace("gte.", "new.", 1): tensor for name, tensor in tensors.items()}
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    config |= {"model_type": "new", "architectures": ["NewForMaskedLM"], "rope_theta": theta}
    config |= {"position_embedding_type": "rope", "layer_norm_type": "layer_norm"}
    config |= {"pack_qkv": True, "logn_attention_scale": False, "rope_scaling": None}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_pairs(folder: Path, kind: str, num_labels: int = 1, **options: Any) -> None:
    """Save a cross-encoder and its scores for pairs of TEXTS."""
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer = options.get("tokenizer") or make_pair_tokenizer()
    settings = {**TINY_SIZES, "num_labels": num_labels, **options.get("settings", {})}
    model = random_model(kind, len(tokenizer), 11, "SequenceClassification", **settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    encoder = CrossEncoder(str(folder), device="cpu")
    pairs = list(product(TEXTS, TEXTS))
    scores = torch.tensor(encoder.predict(pairs))
    logits = torch.tensor(encoder.predict(pairs, activation_fn=torch.nn.Identity()))
    save_file({"scores": scores, "logits": logits}, folder / "expected.safetensors")


def make_pair_tokenizer() -> BertTokenizer:
    """Return make_tokenizer as the class that tells two texts apart."""
    return BertTokenizer(vocab=make_tokenizer().get_vocab(), model_max_length=40)


def rename_to_legacy(path: Path) -> None:
    """Give LayerNorm weights the names that TensorFlow checkpoints had."""
    tensors = load_file(path)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in tensors.items():
        for new, legacy in old.items():
            name = name.replace(new, legacy)
        renamed[name] = tensor
    save_file(renamed, path, metadata={"format": "pt"})


def reference_outputs(
    encoder: SparseEncoder, texts: list[str], layers_of: int | None = None
) -> dict[str, torch.Tensor]:
    """Return token ids, hidden states, logits and SPLADE weights, as the reference has them.

    layers_of: the first texts, of which all but the weights is returned; None is all of them.
    """
    model, tokenizer = encoder[0].model, encoder.tokenizer
    cut = {"truncation": True, "max_length": encoder.max_seq_length}
    batch = tokenizer(texts[:layers_of], padding=True, return_tensors="pt", **cut)
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
    weights = encoder.encode(texts, convert_to_sparse_tensor=False)
    return {
        "input_ids": batch["input_ids"].int(),
        "attention_mask": batch["attention_mask"].int(),
        "hidden_states": output.hidden_states[-1].contiguous(),
        "logits": output.logits.contiguous(),
        "weights": weights.contiguous(),
    }


def write_real(model_folder: str) -> None:
    """Record what the reference makes of REAL_TEXTS with real weights, non-zero weights only."""
    encoder = SparseEncoder(model_folder, device="cpu")
    rows = []
    for text in REAL_TEXTS:
        weights = encoder.encode(text, convert_to_sparse_tensor=False)
        active = torch.nonzero(weights).flatten().tolist()
        # Nine digits carry a float32 exactly.
        rows.append({"text": text, "weights": {i: float(f"{weights[i]:.9g}") for i in active}})
    with open(GOLDEN / "splade_tiny.json", "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def main() -> None:
    """Write everything; the argument is the folder of splade-tiny."""
    write_checkpoint(GOLDEN / "bert", "bert")
    write_checkpoint(GOLDEN / "bert-untied", "bert", tied=False, seed=1, strategy="sum")
    write_checkpoint(GOLDEN / "bert-float16", "bert", dtype=torch.float16, seed=2, legacy=True)
    write_checkpoint(GOLDEN / "bert-bfloat16", "bert", dtype=torch.bfloat16, seed=3)
    write_checkpoint(GOLDEN / "distilbert", "distilbert", activation="log1p_relu", seed=4)
    write_checkpoint(GOLDEN / "distilbert-untied", "distilbert", tied=False, seed=5)
    write_roberta(GOLDEN / "roberta")
    tokenizer = make_byte_pair_tokenizer()
    write_small(GOLDEN / "xlm-roberta", "xlm-roberta", tokenizer, seed=7, dtype=torch.bfloat16)
    write_small(GOLDEN / "albert", "albert", seed=8, settings={"embedding_size": 12})
    write_small(GOLDEN / "modernbert", "modernbert", seed=10)
    write_gte(GOLDEN / "gte")
    bias = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
    write_small(GOLDEN / "modernbert-biased", "modernbert", seed=12, settings=bias)
    pair_tokenizer = make_pair_tokenizer()
    write_pairs(GOLDEN / "pairs" / "bert", "bert")
    one_type = make_tokenizer()  # of a class that does not tell texts apart
    one_type.backend_tokenizer.post_processor = pair_tokenizer.backend_tokenizer.post_processor
    write_pairs(GOLDEN / "pairs" / "bert-one-type", "bert", tokenizer=one_type)
    write_pairs(GOLDEN / "pairs" / "distilbert", "distilbert", num_labels=3)
    write_pairs(GOLDEN / "pairs" / "roberta", "roberta", tokenizer=tokenizer)
    write_real(sys.argv[1])


if __name__ == "__main__":
    main()
