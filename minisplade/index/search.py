"""Search: queries and options to the best documents, compiled where Numba is there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.errors import InputError
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.postings import Postings
from minisplade.vectors import SparseVector, SparseVectors, as_rows

Found: TypeAlias = tuple[IdArray, FloatArray]
"""Documents and their scores, best first: int32 and float32, (k,) or fewer."""

QUERIES_PER_CALL = 16
"""Queries of a batch that a thread takes at a time: few enough to share the work out evenly."""

LEAST_BLOCKS = 4
"""Blocks that are worth a thread of their own when threads share one query."""

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
    if _kernels() is None:
        return search_reference(postings, query, options)
    num_blocks = postings.lists.num_blocks
    if options.num_threads > 1 and num_blocks >= 2 * LEAST_BLOCKS:
        return _search_in_threads(postings, query, options)
    found = _search_one(postings, query, options, 0, num_blocks)
    return _refused(postings, query, options) if found is None else found


def search_many(
    postings: Postings, queries: SparseVectors, options: SearchOptions
) -> Iterator[Found]:
    """Answer each query as search does, in order, sharing queries among threads."""
    if _kernels() is None:
        yield from (search_reference(postings, query, options) for query in queries)
        return
    starts = range(0, len(queries), QUERIES_PER_CALL)

    def answer(start: int) -> list[Found]:
        batch = queries[start : start + QUERIES_PER_CALL]
        doc_ids, scores, counts = _search_blocks(
            postings,
            (batch.offsets, batch.term_ids, batch.weights),
            options,
            0,
            postings.lists.num_blocks,
        )
        return [
            (doc_ids[i, :count], scores[i, :count])
            if count >= 0
            else _refused(postings, batch[i], options)
            for i, count in enumerate(counts.tolist())
        ]

    threads = _pool(options.num_threads) if options.num_threads > 1 else None
    for found in threads.map(answer, starts) if threads else map(answer, starts):
        yield from found


def _search_in_threads(postings: Postings, query: SparseVector, options: SearchOptions) -> Found:
    """Share the blocks of one query among threads, then rank what all have found."""
    from minisplade.kernels.retrieval import rank_candidates
    from minisplade.kernels.selection import ID_MASK

    lists = postings.lists
    threads = min(options.num_threads, lists.num_blocks // LEAST_BLOCKS)
    cuts = np.linspace(0, lists.num_blocks, threads + 1).astype(int).tolist()

    def find(first_block: int, end_block: int) -> Found | None:
        return _search_one(postings, query, options, first_block, end_block)

    found = list(_pool(threads).map(find, cuts[:-1], cuts[1:]))
    parts = [part for part in found if part is not None]
    if len(parts) < len(found):
        return _refused(postings, query, options)
    doc_ids = np.concatenate([part for part, _ in parts])
    scores = np.concatenate([part for _, part in parts])
    if not np.all((scores > 0) & (scores < np.inf)):
        return search_reference(postings, query, options)
    keys = (scores.view(np.int32).astype(np.int64) << 32) | (ID_MASK - doc_ids)
    best = np.empty(min(int(options.k), keys.size), dtype=np.int32)
    best_scores = np.empty(best.size, dtype=np.float32)
    rank_candidates(
        lists,
        np.array(query.term_ids),
        np.array(query.weights),
        best.size,
        keys,
        keys.size,
        keys.copy(),
        best,
        best_scores,
    )
    return best, best_scores


def _search_one(
    postings: Postings,
    query: SparseVector,
    options: SearchOptions,
    first_block: int,
    end_block: int,
) -> Found | None:
    """Answer one query from some blocks, or return None where the kernel refuses to."""
    offsets = np.array([0, query.term_ids.size])
    rows = offsets, query.term_ids, query.weights
    doc_ids, scores, counts = _search_blocks(postings, rows, options, first_block, end_block)
    count = counts[0]
    return None if count < 0 else (doc_ids[0, :count], scores[0, :count])


def _search_blocks(
    postings: Postings,
    queries: tuple[OffsetArray, IdArray, FloatArray],
    options: SearchOptions,
    first_block: int,
    end_block: int,
) -> tuple[IdArray, FloatArray, OffsetArray]:
    """Answer a few queries, in three arrays as in SparseVectors, in one compiled call.

    Returns doc_ids int32 and scores float32, (Q, k), and how many of each row are hits, int64 (Q,).
    """
    k = max(1, min(int(options.k), postings.num_docs))
    shape = queries[0].size - 1, k
    doc_ids, scores = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
    counts = np.empty(shape[0], dtype=np.int64)
    _kernels().search_queries(
        postings.lists,
        # Kernels are compiled for each kind of array: copies are always contiguous and writable.
        np.array(queries[0]),
        np.array(queries[1]),
        np.array(queries[2]),
        k,
        float(options.alpha),
        options.allowed.allowed,
        options.allowed.doc_ids,
        first_block,
        end_block,
        *_scratch(postings),
        doc_ids,
        scores,
        counts,
    )
    return doc_ids, scores, counts


def _refused(postings: Postings, query: SparseVector, options: SearchOptions) -> Found:
    """Explain what is wrong with a query, or answer one that float32 cannot hold."""
    as_rows(query).check()
    return search_reference(postings, query, options)


def search_reference(postings: Postings, query: SparseVector, options: SearchOptions) -> Found:
    """Do as search, in NumPy alone and in float64: the meaning of what the kernels compute.

    Source: term-at-a-time evaluation, Turtle and Flood 1995, "Query Evaluation", section 2.
    """
    as_rows(query).check()
    scores = np.zeros(postings.num_docs, dtype=np.float64)
    for term_id, weight in zip(query.term_ids, query.weights, strict=True):
        doc_ids, impacts = postings.list_of(int(term_id))
        # A term lists each document once, so no addition is lost.
        scores[doc_ids] += float(weight) * impacts.astype(np.float64)
    if options.allowed is not EVERYTHING:
        scores[~options.allowed.allowed] = 0
    best = select_top_k(scores, int(options.k))
    with np.errstate(over="ignore", under="ignore"):  # float32 may hold less than the order needs
        return best, scores[best].astype(np.float32)


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
    postings: Postings, query: SparseVector, epsilon: float
) -> tuple[SparseVector, float]:
    """Leave out the terms that cost most for what they can add, together at most epsilon.

    Returns the shorter query and the most that a score can lose by it.
    """
    lists = postings.lists
    ids, weights = query.term_ids, query.weights
    in_range = not ids.size or 0 <= ids.min() <= ids.max() < lists.peaks.size
    if not (in_range and np.all((weights > 0) & (weights < np.inf))):
        as_rows(query).check()  # which says what is wrong
    bounds = query.weights.astype(np.float64) * lists.peaks[query.term_ids]
    first = query.term_ids.astype(np.int64) * lists.num_blocks
    lengths = lists.offsets[first + lists.num_blocks] - lists.offsets[first]
    by_merit = np.argsort(bounds / np.maximum(lengths, 1), kind="stable")
    sums = np.cumsum(bounds[by_merit])
    dropped = int(np.searchsorted(sums, epsilon, side="right"))
    kept = np.sort(by_merit[dropped:])
    shorter = SparseVector(query.term_ids[kept], query.weights[kept], query.num_terms)
    return shorter, float(sums[dropped - 1]) if dropped else 0.0


@lru_cache
def _kernels() -> Any:
    """Return the compiled functions, or None where Numba is left out, as small machines may."""
    return import_module("minisplade.kernels.retrieval") if find_spec("numba") else None


def _scratch(postings: Postings) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    """Return this thread's arrays for the scores of a block and for keys, kept between calls."""
    lists = postings.lists
    width = max(lists.block_size, 128)
    # Memory that is never written is never taken, so room for all documents costs nothing.
    room = lists.num_docs + 2 * width
    kept = getattr(_local, "kept", None)
    if kept is None or kept[0].size != width or kept[1].size < room:
        kept = (
            np.empty(width, dtype=np.float32),
            np.empty(room, dtype=np.int64),
            np.empty(room, dtype=np.int64),
        )
        _local.kept = kept
    return kept


@lru_cache(maxsize=8)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Return threads that stay, so that their scratch does too."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="minisplade")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
