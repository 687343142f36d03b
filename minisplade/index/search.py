"""Search: queries and options to the best documents, compiled where Numba is there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from operator import gt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.errors import InputError
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.parts import Parts
from minisplade.index.postings import Postings
from minisplade.vectors import SparseVector, SparseVectors, as_rows

Found: TypeAlias = tuple[IdArray, FloatArray]
"""Documents and their scores, best first: int32 and float32, (k,) or fewer."""

Rows: TypeAlias = tuple[OffsetArray, IdArray, FloatArray]
"""The arrays of a few queries, as in SparseVectors."""

ID_MASK = 0x7FFFFFFF
"""Keys hold the complement of a document's number in so many bits; see kernels.selection."""

QUERIES_PER_CALL = 16
"""Queries of a batch that a thread takes at a time: few enough to share the work out evenly."""

QUERIES_PER_RUN = 4096
"""Queries whose results are in memory before the first is handed on."""

MOST_RESULTS = 1 << 20
"""A thread keeps room for so many results between calls: 8 MB."""

_local = threading.local()


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How much to find, where, with how many threads, and how nearly.

    alpha: the score at each rank is at least alpha times the best possible one. epsilon: and,
    before that, at most so much lower. With 1 and 0 results are exact.
    """

    k: int = 10
    allowed: Filter = EVERYTHING
    num_threads: int = 1
    alpha: float = 1.0
    epsilon: float = 0.0

    def check(self) -> None:
        """Raise InputError for values out of range."""
        k, threads = self.k, self.num_threads
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k is {k!r}; expected a whole number, 1 or more")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise InputError(f"num_threads is {threads!r}; expected a whole number, 1 or more")
        if not 0 < self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha!r}; expected more than 0, and 1 at most")
        if not 0 <= self.epsilon < np.inf:
            raise InputError(f"epsilon is {self.epsilon!r}; expected 0 or more")


def search(postings: Postings, query: SparseVector, options: SearchOptions) -> Found:
    """Return the documents with the highest positive dot products, and those scores.

    Ranks follow the float64 dot products, equal ones by document, whatever the form of the
    postings and the number of threads; scores may differ in their last bit. Raises InputError for
    a query with terms out of order or weights that are not positive and finite.
    """
    return search_parts(Parts.of([(postings, options.allowed)]), query, options)


def search_many(
    postings: Postings, queries: SparseVectors, options: SearchOptions
) -> Iterator[Found]:
    """Answer each query as search does, in order, sharing queries among threads."""
    return search_parts_many(Parts.of([(postings, options.allowed)]), queries, options)


def search_parts(parts: Parts, query: SparseVector, options: SearchOptions) -> Found:
    """Do as search with the postings of all parts as if they were one index.

    Documents are numbered through, part after part; options.allowed is not looked at.
    """
    if _kernels() is None or not parts.members:
        return _reference(parts, query, options)
    _check_kinds(query)
    rows = np.array([0, query.term_ids.size]), query.term_ids, query.weights
    shared = options.num_threads > 1
    tables = parts.shared_out(options.num_threads) if shared else [parts.table]
    if len(tables) == 1:
        answer = _call(parts, rows, options)[0]
        return _refused(parts, query, options) if answer is None else answer

    def find(table: Any) -> Found | None:
        return _call(replace(parts, table=table), rows, options)[0]

    answers = list(_pool(len(tables)).map(find, tables))
    found = [answer for answer in answers if answer is not None]
    if len(found) < len(answers):
        return _refused(parts, query, options)
    return rank_found(parts, query, options, found)


def search_parts_many(
    parts: Parts, queries: SparseVectors, options: SearchOptions
) -> Iterator[Found]:
    """Answer each query as search_parts does, in order, sharing queries among threads."""
    if _kernels() is None or not parts.members:
        yield from (_reference(parts, query, options) for query in queries)
        return
    _check_kinds(queries)
    for start in range(0, len(queries), QUERIES_PER_RUN):
        offsets = queries.offsets[start : start + QUERIES_PER_RUN + 1]
        rows = offsets, queries.term_ids, queries.weights
        found = _answers(parts, rows, options)
        for place, one in enumerate(found, start):
            yield _refused(parts, queries[place], options) if one is None else one


def _check_kinds(queries: SparseVector | SparseVectors) -> None:
    """Raise InputError for arrays that cannot be copied as they are to where kernels read them."""
    ids, weights = queries.term_ids, queries.weights
    kinds = ids.dtype == np.int32 and weights.dtype == np.float32
    if not (kinds and ids.shape == weights.shape == (ids.size,)):
        as_rows(queries).check()  # which says what is wrong


def _answers(parts: Parts, queries: Rows, options: SearchOptions) -> list[Found | None]:
    """Answer some queries; None stands for one that the kernels refuse."""
    offsets, term_ids, weights = queries
    num_queries = offsets.size - 1
    starts = iter(range(0, num_queries, QUERIES_PER_CALL))  # the thread that is free takes the next
    answers: list[list[Found | None]] = [[]] * -(-num_queries // QUERIES_PER_CALL)

    def answer() -> None:
        for start in starts:
            own = offsets[start : start + QUERIES_PER_CALL + 1]
            slots = slice(own[0], own[-1])
            rows = own - own[0], term_ids[slots], weights[slots]
            answers[start // QUERIES_PER_CALL] = _call(parts, rows, options)

    threads = options.num_threads
    helpers = [_pool(threads).submit(answer) for _ in range(threads - 1)]
    answer()
    for helper in helpers:
        helper.result()
    return list(chain.from_iterable(answers))


def _call(parts: Parts, queries: Rows, options: SearchOptions) -> list[Found | None]:
    """Answer up to QUERIES_PER_CALL queries by one call of a kernel."""
    offsets, term_ids, weights = queries
    num_queries, num_terms = offsets.size - 1, term_ids.size
    k = max(1, min(int(options.k), parts.num_docs))
    desk = _taken_desk(parts, num_terms, num_queries * k)
    scratch = desk.scratch.value
    scratch.offsets[: num_queries + 1] = offsets
    scratch.term_ids[:num_terms] = term_ids
    scratch.weights[:num_terms] = weights
    wanted = parts.table, desk.scratch, num_queries, k, float(options.alpha)
    if desk.wanted != wanted:
        desk.wanted, desk.call = wanted, _kernels().search_queries.bound(*wanted)
    desk.call()
    found: list[Found | None] = []
    for i, count in enumerate(scratch.counts[:num_queries].tolist()):
        own = slice(i * k, i * k + count)
        best = (scratch.doc_ids[own].copy(), scratch.scores[own].copy()) if count >= 0 else None
        found.append(best)
    _give_back(desk)
    return found


def _refused(parts: Parts, query: SparseVector, options: SearchOptions) -> Found:
    """Explain what is wrong with a query, or answer one that float32 cannot hold."""
    return _reference(parts, query, options)  # which checks the query first


def rank_found(
    parts: Parts, query: SparseVector, options: SearchOptions, found: Sequence[Found]
) -> Found:
    """Rank what threads have found for one query, each in blocks of its own."""
    doc_ids = np.concatenate([ids for ids, _ in found])
    scores = np.concatenate([own for _, own in found])
    if not np.all((scores > 0) & (scores < np.inf)):
        return _reference(parts, query, options)
    keys = (scores.view(np.int32).astype(np.int64) << 32) | (ID_MASK - doc_ids)
    best = np.empty(min(int(options.k), keys.size), dtype=np.int32)
    best_scores = np.empty(best.size, dtype=np.float32)
    if best.size:
        desk = _taken_desk(parts, len(query), best.size)
        desk.scratch.value.keys[: keys.size] = keys
        _kernels().rank_candidates(
            parts.table,
            desk.scratch,
            np.ascontiguousarray(query.term_ids),
            np.ascontiguousarray(query.weights),
            int(best.size),
            int(keys.size),
            best,
            best_scores,
        )
        _give_back(desk)
    return best, best_scores


def search_reference(postings: Postings, query: SparseVector, options: SearchOptions) -> Found:
    """Do as search, in NumPy alone and in float64: the meaning of what the kernels compute.

    Source: term-at-a-time evaluation, Turtle and Flood 1995, "Query Evaluation", section 2.
    """
    return _reference(Parts.of([(postings, options.allowed)]), query, options)


def _reference(parts: Parts, query: SparseVector, options: SearchOptions) -> Found:
    """Do as search_parts, in the way of search_reference."""
    as_rows(query).check()
    all_scores = [np.zeros(0)]
    for postings, allowed in parts.members:
        scores = np.zeros(postings.num_docs, dtype=np.float64)
        for term_id, weight in zip(query.term_ids, query.weights, strict=True):
            doc_ids, impacts = postings.list_of(int(term_id))
            # A term lists each document once, so no addition is lost.
            scores[doc_ids] += float(weight) * impacts.astype(np.float64)
        if allowed is not EVERYTHING:
            scores[~allowed.allowed] = 0
        all_scores.append(scores)
    joined = np.concatenate(all_scores)
    best = select_top_k(joined, int(options.k))
    with np.errstate(over="ignore", under="ignore"):  # float32 may hold less than the order needs
        return best, joined[best].astype(np.float32)


def select_top_k(scores: NDArray[Any], k: int) -> IdArray:
    """Rank positive scores, highest first; equal scores by lower doc id.

    scores: float (N,); returns int32 (k,) or fewer.
    """
    doc_ids = np.flatnonzero(scores > 0)
    if doc_ids.size > k:
        kth_best = np.partition(scores[doc_ids], -k)[-k]
        doc_ids = doc_ids[scores[doc_ids] >= kth_best]
    return doc_ids[np.lexsort((doc_ids, -scores[doc_ids]))][:k].astype(np.int32)


def drop_light_terms(
    parts: Parts, query: SparseVector, epsilon: float
) -> tuple[SparseVector, float]:
    """Leave out the terms that cost most for what they can add, together at most epsilon.

    Returns the shorter query and the most that a score can lose by it.
    """
    ids, weights = query.term_ids, query.weights
    in_range = not ids.size or 0 <= ids.min() <= ids.max() < query.num_terms
    if not (in_range and np.all((weights > 0) & (weights < np.inf))):
        as_rows(query).check()  # which says what is wrong
    if not parts.members:
        return query, 0.0
    bounds = weights.astype(np.float64) * parts.peaks[ids]
    by_merit = np.argsort(bounds / np.maximum(parts.lengths[ids], 1), kind="stable")
    sums = np.cumsum(bounds[by_merit])
    dropped = int(np.searchsorted(sums, epsilon, side="right"))
    kept = np.sort(by_merit[dropped:])
    shorter = SparseVector(query.term_ids[kept], query.weights[kept], query.num_terms)
    return shorter, float(sums[dropped - 1]) if dropped else 0.0


@lru_cache
def _kernels() -> Any:
    """Return the compiled functions, or None where Numba is left out, as small machines may."""
    return import_module("minisplade.kernels.ranking") if find_spec("numba") else None


@dataclass(slots=True)
class Desk:
    """What a thread keeps between calls: working memory, and the last call, ready to go again."""

    scratch: Any  # a SearchScratch, as a Bundle
    sizes: tuple[int, ...]
    wanted: Any = None  # what the call is for: the arguments of the kernel
    call: Any = None


def _taken_desk(parts: Parts, num_terms: int, num_results: int) -> Desk:
    """Take this thread's desk, or a larger one: a signal that searches meanwhile gets another."""
    needed = num_terms, num_results, parts.widest, parts.num_docs
    desk: Desk | None = getattr(_local, "desk", None)
    _local.desk = None
    if desk is None or any(map(gt, needed, desk.sizes)):
        from minisplade.kernels.compiler import Bundle
        from minisplade.kernels.retrieval import SearchScratch

        sizes = tuple(map(max, needed, desk.sizes)) if desk else needed
        desk = Desk(Bundle(SearchScratch.of_size(QUERIES_PER_CALL, *sizes)), sizes)
    return desk


def _give_back(desk: Desk) -> None:
    """Keep a desk for the next call, unless it takes much memory."""
    if desk.sizes[1] <= MOST_RESULTS:
        _local.desk = desk


@lru_cache(maxsize=8)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Return threads that stay, so that their scratch does too."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="minisplade")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
