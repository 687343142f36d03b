"""Word pieces of plain text, remembered word by word.

BERT's tokenizer cuts a text into words, and each word into pieces whatever stands beside it. So
what the `tokenizers` library makes of a word is kept, and the next text takes a tenth of the time.
Text that is not plain (letters beyond ASCII, control characters, special tokens) stays with the
library, which says what is right: tests hold the two equal.
"""

import re
from dataclasses import dataclass
from itertools import chain, islice
from weakref import WeakKeyDictionary

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing, TemplateProcessing

from minisplade.arrays import IdArray

MOST_WORDS = 1 << 16
"""Words that are remembered: some 10 MB, and most of what texts of one kind are made of."""
PLAIN = re.compile(r"[\t\n\r -~]*")
WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")


class WordPieces(dict[str, tuple[int, ...]]):
    """The ids of each word's pieces, looked up in the model when a word is new."""

    def __init__(self, model: WordPiece) -> None:
        """Start without words."""
        self.model = model

    def __missing__(self, word: str) -> tuple[int, ...]:
        """Cut a word, and remember it while there is room."""
        ids = tuple(token.id for token in self.model.tokenize(word))
        if len(self) < MOST_WORDS:
            self[word] = ids
        return ids


@dataclass(frozen=True, slots=True)
class PlainTokenizer:
    """What a tokenizer does to plain text."""

    state: tuple[object, ...]  # of the tokenizer that it was made for
    lower_case: bool
    first: tuple[int, ...]  # special tokens before the text, and after it
    last: tuple[int, ...]
    special: tuple[str, ...]  # strings that are tokens of their own, in lower case
    pieces: WordPieces

    def cut(self, text: str, max_seq_length: int, special_tokens: bool) -> IdArray | None:
        """Cut a text as the library does, or return None where it has to.

        Returns int32 (T,), at most max_seq_length.
        """
        if not (text.isascii() and (text.isprintable() or PLAIN.fullmatch(text))):
            return None
        room = max_seq_length - special_tokens * (len(self.first) + len(self.last))
        lowered = text.lower()
        if room <= 0 or any(string in lowered for string in self.special):
            return None
        words = WORD.findall(lowered if self.lower_case else text)
        ids = list(islice(chain.from_iterable(map(self.pieces.__getitem__, words)), room))
        if special_tokens:
            ids = [*self.first, *ids, *self.last]
        return np.array(ids, dtype=np.int32)


_known: WeakKeyDictionary[Tokenizer, PlainTokenizer | None] = WeakKeyDictionary()


def plain_tokenizer(tokenizer: Tokenizer) -> PlainTokenizer | None:
    """Return what cuts plain text as a tokenizer does, or None if that is not one of BERT's."""
    known = _known.get(tokenizer)
    if known is None or known.state != _state(tokenizer):  # it may have been changed since
        known = _known[tokenizer] = _understand(tokenizer)
    return known


def _state(tokenizer: Tokenizer) -> tuple[object, ...]:
    """Return what tells that a tokenizer is still the same."""
    parts = tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.post_processor
    return (tokenizer.get_vocab_size(), *map(str, parts))


def _understand(tokenizer: Tokenizer) -> PlainTokenizer | None:
    """Find out what a tokenizer does to plain text."""
    normalizer, processor = tokenizer.normalizer, tokenizer.post_processor
    if not (
        isinstance(normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and isinstance(processor, BertProcessing | TemplateProcessing)
        and tokenizer.padding is None
    ):
        return None
    letter = tokenizer.encode("a", add_special_tokens=False)
    whole = processor.process(letter).ids
    if len(letter.ids) != 1 or whole.count(letter.ids[0]) != 1:
        return None
    place = whole.index(letter.ids[0])
    added = tokenizer.get_added_tokens_decoder().values()
    return PlainTokenizer(
        state=_state(tokenizer),
        lower_case=normalizer.lowercase,
        first=tuple(whole[:place]),
        last=tuple(whole[place + 1 :]),
        special=tuple(token.content.lower() for token in added),
        pieces=WordPieces(tokenizer.model),
    )
