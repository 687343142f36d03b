"""Text to token ids, by the `tokenizers` library; vocabularies.py reads a model's tokenizer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from minisplade.arrays import BoolArray, IdArray
from minisplade.errors import InputError

CHARACTERS_AT_ONCE = 1 << 18
"""Text that is tokenized together: the library keeps some 50 bytes for each character of it."""
CHARACTERS_PER_TOKEN = 32
"""More than nearly any text has; what comes long after the last token that counts is not read."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Texts of different lengths as one rectangle, padded on the right."""

    input_ids: IdArray  # int32 (B, T)
    attention_mask: BoolArray  # bool (B, T), True at tokens, False at padding


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Two texts as one sequence, each token of the first or of the second type."""

    input_ids: IdArray  # int32 (T,)
    token_type_ids: IdArray  # int32 (T,)


def tokenize(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    max_seq_length: int,
    prompt: str = "",
    special_tokens: bool = True,
) -> list[IdArray]:
    """Cut each text to at most max_seq_length token ids, special tokens such as [CLS] included.

    prompt goes before every text; special_tokens: whether to add any. Returns one int32 (T,) a
    text. Raises InputError for a text that is not a str or not Unicode.
    """
    # Setting it is cheap, and keeps one tokenizer good for calls with different limits.
    tokenizer.enable_truncation(max_seq_length)
    try:
        return [
            ids
            for group in _groups([prompt + text for text in texts])
            for ids in _tokenize_group(tokenizer, group, max_seq_length, special_tokens)
        ]
    except (TypeError, UnicodeEncodeError):
        raise InputError(_what_is_wrong(texts)) from None


def tokenize_pairs(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], max_seq_length: int
) -> list[TokenPair]:
    """Cut each pair to at most max_seq_length tokens, from the end of whichever text is longer.

    Raises InputError for a text that is not a str or not Unicode.
    """
    tokenizer.enable_truncation(max_seq_length, strategy="longest_first")
    longest = CHARACTERS_PER_TOKEN * max_seq_length
    found = []
    try:
        starts = [(_start(first, longest), _start(second, longest)) for first, second in pairs]
        for pair, start, encoding in zip(
            pairs, starts, tokenizer.encode_batch(starts), strict=True
        ):
            if start != tuple(pair) and len(encoding.ids) < max_seq_length:
                encoding = tokenizer.encode(*pair)
            ids = np.array(encoding.ids, dtype=np.int32)
            found.append(TokenPair(ids, np.array(encoding.type_ids, dtype=np.int32)))
    except (TypeError, UnicodeEncodeError, AttributeError):
        raise InputError(_what_is_wrong([text for pair in pairs for text in pair])) from None
    return found


def _groups(texts: list[str]) -> Iterator[list[str]]:
    """Split texts into runs of about CHARACTERS_AT_ONCE."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= CHARACTERS_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _tokenize_group(
    tokenizer: Tokenizer, texts: list[str], max_seq_length: int, special_tokens: bool
) -> Iterator[IdArray]:
    """Tokenize the beginnings of texts, and the whole text where that was not enough."""
    starts = [_start(text, CHARACTERS_PER_TOKEN * max_seq_length) for text in texts]
    encodings = tokenizer.encode_batch_fast(starts, add_special_tokens=special_tokens)
    for text, start, encoding in zip(texts, starts, encodings, strict=True):
        if len(start) < len(text) and len(encoding.ids) < max_seq_length:
            [encoding] = tokenizer.encode_batch_fast([text], add_special_tokens=special_tokens)
        yield np.array(encoding.ids, dtype=np.int32)


def _start(text: str, length: int) -> str:
    """Cut a text that is longer than length before a space, where no word goes on."""
    end = text.rfind(" ", 0, length) if len(text) > length else -1
    return text[:end] if end > 0 else text


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[NDArray[np.intp]]:
    """Put texts of like length together, so that little of a batch is padding; return places."""
    order = np.argsort([-length for length in lengths], kind="stable")
    return [order[start : start + batch_size] for start in range(0, order.size, batch_size)]


def pad(sequences: Sequence[IdArray], pad_id: int) -> TokenBatch:
    """Put sequences into one rectangle as long as the longest of them."""
    lengths = np.array([sequence.size for sequence in sequences])
    attention_mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    input_ids = np.full(attention_mask.shape, pad_id, dtype=np.int32)
    input_ids[attention_mask] = np.concatenate(sequences)
    return TokenBatch(input_ids, attention_mask)


def term_strings(tokenizer: Tokenizer, vocab_size: int) -> list[str]:
    """Return the string of each term id (V,); ids that the tokenizer does not know are ""."""
    terms = [""] * vocab_size
    for term, term_id in tokenizer.get_vocab().items():
        terms[term_id] = term
    return terms


def _what_is_wrong(texts: Sequence[str]) -> str:
    """Say which text cannot be tokenized, and why."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            return f"text {number} is {type(text).__name__}; expected str"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"text {number} has the lone surrogate {text[error.start]!r} at position "
                f"{error.start}, which is not Unicode text; read the source with "
                "errors='replace', or use text.encode('utf-8', 'replace').decode()"
            )
    return "the texts cannot be tokenized"
