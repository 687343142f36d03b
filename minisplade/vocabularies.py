"""A model's tokenizer: from tokenizer.json, or built from the vocabulary files of older models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from minisplade.checkpoint import MAX_JSON_BYTES, read_json
from minisplade.errors import CheckpointError

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
"""What a tokenizer can be read from, the best first; vocab.json needs merges.txt beside it."""

WORD_PIECE_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
BYTE_PAIR_TOKENS = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}
# Their words are found by a program that is not there: vocab.txt alone gives other tokens.
FOREIGN_WORDS = {"BertJapaneseTokenizer": "MeCab", "PhobertTokenizer": "a Vietnamese segmenter"}


def tokenizer_file(folder: Path) -> Path | None:
    """Return the file that a folder's tokenizer is read from, or None."""
    return next((folder / name for name in TOKENIZER_FILES if (folder / name).is_file()), None)


def load_tokenizer(folder: Path, vocab_size: int, lower_case: bool = False) -> Tokenizer:
    """Read the tokenizer of a model folder; it must not know more terms than the model.

    lower_case: make texts lower case first, whatever the tokenizer does itself. Raises
    CheckpointError.
    """
    path = tokenizer_file(folder)
    if path is None:
        hint = ""
        if any(folder.glob("*.model")):
            hint = (
                "; its SentencePiece model alone is not read: load and save the tokenizer once "
                "with transformers' AutoTokenizer, which writes tokenizer.json"
            )
        raise CheckpointError(f"{folder} has none of {', '.join(TOKENIZER_FILES)}{hint}")
    tokenizer = _read(path)
    expect_fit(tokenizer, vocab_size, path)
    if lower_case:
        own = [tokenizer.normalizer] if tokenizer.normalizer else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    tokenizer.no_padding()
    return tokenizer


def largest_id(tokenizer: Tokenizer) -> int:
    """Return the largest id that a tokenizer gives a token, -1 where it knows none."""
    return max(tokenizer.get_vocab().values(), default=-1)


def expect_fit(tokenizer: Tokenizer, vocab_size: int, path: Path) -> None:
    """Raise CheckpointError if a tokenizer gives ids that a model or table has no row for."""
    largest = largest_id(tokenizer)
    if largest >= vocab_size:
        raise CheckpointError(
            f"{path} belongs to a tokenizer with term ids up to {largest}, and the model has only "
            f"{vocab_size} terms; tokenizer and weights belong to different models"
        )


def _read(path: Path) -> Tokenizer:
    """Read or build a tokenizer; raises CheckpointError."""
    config = path.parent / "tokenizer_config.json"
    settings = read_json(config) if config.is_file() else {}
    try:
        if path.name == "tokenizer.json":
            tokenizer = Tokenizer.from_file(str(path))
        else:
            build = _word_pieces if path.name == "vocab.txt" else _byte_pairs
            tokenizer = build(path, settings)
        # Some mistakes, such as a frame of unknown tokens, show only in use.
        tokenizer.encode("a")
        return tokenizer
    except (CheckpointError, KeyboardInterrupt):
        raise
    except (
        BaseException
    ) as error:  # the library raises bare Exception, and panics are not even that
        raise CheckpointError(f"{path} is not a tokenizer file: {error}") from None


def _word_pieces(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Build BERT's tokenizer from vocab.txt, one token a line."""
    kind = str(settings.get("tokenizer_class"))
    needed = FOREIGN_WORDS.get(kind.removesuffix("Fast"))
    if needed:
        raise CheckpointError(
            f"{path.parent} needs {kind}, which finds words with {needed}; that is not supported"
        )
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} is larger than any vocabulary")
    lines = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {line.rstrip("\r"): number for number, line in enumerate(lines) if line}
    special = _special_tokens(settings, WORD_PIECE_TOKENS, vocabulary, path)
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    first, last = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(token, vocabulary[token]) for token in (first, last)],
    )
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer


def _byte_pairs(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Build RoBERTa's tokenizer from vocab.json and merges.txt."""
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise CheckpointError(f"{path} needs merges.txt beside it")
    vocabulary = read_json(path)
    special = _special_tokens(settings, BYTE_PAIR_TOKENS, vocabulary, path)
    first, last = special["cls_token"], special["sep_token"]
    tokenizer = Tokenizer(models.BPE.from_file(str(path), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=settings.get("add_prefix_space", False)
    )
    tokenizer.post_processor = processors.RobertaProcessing(
        (last, vocabulary[last]),
        (first, vocabulary[first]),
        trim_offsets=True,
        add_prefix_space=settings.get("add_prefix_space", False),
    )
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer


def _special_tokens(
    settings: Mapping[str, Any], names: Mapping[str, str], vocabulary: Mapping[str, Any], path: Path
) -> dict[str, str]:
    """Return the special tokens that a vocabulary has; raises CheckpointError for a missing one."""
    found = {}
    for name, default in names.items():
        token = settings.get(name) or default
        # Newer files keep more about a token than its text.
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str) and text in vocabulary:
            found[name] = text
        elif name in ("cls_token", "sep_token", "unk_token"):
            raise CheckpointError(f"{path} lacks the token {text!r}, which texts are framed with")
    return found
