"""Text to token ids, by the `tokenizers` library; vocabularies.py reads a model's tokenizer."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from minisplade.arrays import BoolArray, IdArray
from minisplade.errors import InputError
from minisplade.pieces import plain_tokenizer

CHARACTERS_AT_ONCE = 1 << 18
"""Text that is tokenized together: the library keeps some 50 bytes for each character of it."""
CHARACTERS_PER_TOKEN = 32
"""More than nearly any text has; what comes long after the last token that counts is not read."""


Span: TypeAlias = tuple[int, int]
"""Characters of a text, from the first to before the last: text[start:end]."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Texts of different lengths as one rectangle, padded on the right."""

    input_ids: IdArray  # int32 (B, T)
    attention_mask: BoolArray  # bool (B, T), True at tokens, False at padding


@dataclass(frozen=True, slots=True)
class Token:
    """One position of a model's input, and the characters of the text that it stands for."""

    string: str  # as the vocabulary has it, such as "##press"
    term_id: int
    span: Span | None  # None: not in the text, as [CLS] or a prompt, or blank
    word: Span | None  # the whole word that it is part of


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
    encode = partial(tokenizer.encode_batch_fast, add_special_tokens=special_tokens)
    plain = plain_tokenizer(tokenizer)
    longest = CHARACTERS_PER_TOKEN * max_seq_length
    try:
        whole = [prompt + text for text in texts]
        found = [
            plain.cut(text, max_seq_length, special_tokens)
            if plain and len(text) <= longest
            else None
            for text in whole
        ]
        others = (
            np.array(encoding.ids, dtype=np.int32)
            for group in _groups([text for text, ids in zip(whole, found) if ids is None])
            for encoding in _encode_group(encode, group, max_seq_length)
        )
        return [next(others) if ids is None else ids for ids in found]
    except (TypeError, UnicodeEncodeError):
        raise InputError(_what_is_wrong(texts)) from None


def read_tokens(
    tokenizer: Tokenizer,
    text: str,
    max_seq_length: int,
    prompt: str = "",
    special_tokens: bool = True,
) -> tuple[Token, ...]:
    """Cut one text into the tokens that tokenize gives, with the characters of each.

    Spans count characters of the text as it is given: what the tokenizer makes of it, such as
    letters without accents, may be shorter. Raises InputError as tokenize.
    """
    tokenizer.enable_truncation(max_seq_length)
    try:
        encode = partial(tokenizer.encode_batch, add_special_tokens=special_tokens)
        (encoding,) = _encode_group(encode, [prompt + text], max_seq_length)
    except (TypeError, UnicodeEncodeError):
        raise InputError(_what_is_wrong([text])) from None
    spans = _spans_in_text(encoding, text, len(prompt))
    words: dict[int | None, Span] = {}
    for word, span in zip(encoding.word_ids, spans, strict=True):
        if span:
            start, end = words.get(word, span)
            words[word] = min(start, span[0]), max(end, span[1])
    return tuple(
        Token(string, term_id, span, span and words.get(word, span))
        for string, term_id, span, word in zip(
            encoding.tokens, encoding.ids, spans, encoding.word_ids, strict=True
        )
    )


def _spans_in_text(encoding: Encoding, text: str, prompt_length: int) -> list[Span | None]:
    """Return the characters of each token, without those of the prompt."""
    spans: list[Span | None] = []
    next_start = len(text)
    for (start, end), special in reversed(
        list(zip(encoding.offsets, encoding.special_tokens_mask, strict=True))
    ):
        start, end = max(0, start - prompt_length), end - prompt_length
        # Some tokenizers count the space before a word to it.
        while start < end and text[start].isspace():
            start += 1
        if special or start >= end:
            spans.append(None)
            continue
        # A mark belongs to the character that it stands on, even if the tokenizer drops it.
        while end < next_start and unicodedata.category(text[end]).startswith("M"):
            end += 1
        spans.append((start, end))
        next_start = start
    return spans[::-1]


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


def _encode_group(
    encode: Callable[[list[str]], list[Encoding]], texts: list[str], max_seq_length: int
) -> Iterator[Encoding]:
    """Tokenize the beginnings of texts, and the whole text where that was not enough."""
    starts = [_start(text, CHARACTERS_PER_TOKEN * max_seq_length) for text in texts]
    for text, start, encoding in zip(texts, starts, encode(starts), strict=True):
        cut_short = len(start) < len(text) and len(encoding.ids) < max_seq_length
        yield encode([text])[0] if cut_short else encoding


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


def term_ids_of(terms: Sequence[str], chosen: Sequence[str]) -> IdArray:
    """Look up the ids of some terms, int32 (C,), in the strings of all V; raises InputError."""
    ids = {term: term_id for term_id, term in enumerate(terms)}
    for term in chosen:
        if term not in ids:
            close = get_close_matches(term, ids, n=3)
            hint = f"; near it: {', '.join(close)}" if close else ""
            raise InputError(f"term {term!r} is not in the vocabulary{hint}")
    return np.array([ids[term] for term in chosen], dtype=np.int32)


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
