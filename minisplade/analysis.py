"""Analysis: inputs to texts, and texts to the words that lexical retrieval counts."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from threading import get_ident
from typing import Any, TypeAlias

from minisplade.errors import InputError

Analyzer: TypeAlias = Callable[[str], list[str]]

WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
POSSESSIVE = re.compile(r"['\u2019]s$")

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with".split()
)
"""The words that Lucene's EnglishAnalyzer leaves out."""


def each_text(inputs: Iterable[str]) -> Iterator[str]:
    """Pass on texts; raises InputError for what is none, and for what would be taken apart."""
    if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
        raise InputError(f"inputs are one {type(inputs).__name__}; expected an iterable of str")
    for number, text in enumerate(inputs):
        if not isinstance(text, str):
            raise InputError(f"text {number} is {type(text).__name__}; expected str")
        yield text


def simple(text: str) -> list[str]:
    """Return the words of a text in lower case: runs of letters, digits and inner apostrophes."""
    return WORD.findall(text.lower())


def english(text: str) -> list[str]:
    """Return the stems of the words of an English text that say something.

    The steps are those of Lucene's EnglishAnalyzer: words, without a possessive 's, in lower case,
    without STOP_WORDS, stemmed. A regular expression tells what a word is, where Lucene asks
    Unicode's UAX 29, and the stemmer is Snowball's English one, Porter's own revision of the
    algorithm that Lucene has (snowballstem.org). Needs PyStemmer; raises InputError without it.
    """
    words = [POSSESSIVE.sub("", word) for word in simple(text)]
    # Stemmers are not for several threads at once, and making one costs little.
    return _stemmer(get_ident()).stemWords([word for word in words if word not in STOP_WORDS])


ANALYZERS: dict[str, Analyzer] = {"english": english, "simple": simple}


@lru_cache(maxsize=64)
def _stemmer(thread: int) -> Any:
    """Return the stemmer of a thread, which remembers the stems of many words."""
    try:
        from Stemmer import Stemmer
    except ImportError as error:
        raise InputError(
            "English analysis needs PyStemmer: pip install 'minisplade[bm25]', or choose "
            "analyzer='simple', which leaves words as they are"
        ) from error
    return Stemmer("english")
