"""Search: queries and options to the best documents, compiled where Numba is there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray, OffsetArray
from minisplade.errors import InputError
from minisplade.index.filters import EVERYTHING, Filter
from minisplade.index.postings import Postings
from minisplade.vectors import SparseVector, SparseVectors, as_rows

Found: TypeAlias = tuple[IdArray, FloatArray]
"""Documents and their scores, best first: int32 and float32, (k,) or fewer."""

Part: TypeAlias = tuple[Postings, Filter]
"""Postings, and which of their documents may be found."""

Rows: TypeAlias = tuple[OffsetArray, IdArray, FloatArray]
"""The arrays of a few queries, as in SparseVectors."""

UNIT = 2.0**-24
"""The relative error of rounding once to float32."""

QUERIES_PER_CALL = 16
"""Queries of a batch that a thread takes at a time: few enough to share the work out evenly."""

LEAST_BLOCKS = 4
"""Blocks that are worth a thread of their own when threads share one query."""

_local = threading.local()


class Piece(NamedTuple):
    """Some blocks of a part."""

    part: int
    first_block: int
    end_block: int


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
    return search_parts([(postings, options.allowed)], query, options)


def search_many(
    postings: Postings, queries: SparseVectors, options: SearchOptions
) -> Iterator[Found]:
    """Answer each query as search does, in order, sharing queries among threads."""
    return search_parts_many([(postings, options.allowed)], queries, options)


def search_parts(parts: Sequence[Part], query: SparseVector, options: SearchOptions) -> Found:
    """Do as search with the postings of all parts as if they were one index.

    Documents are numbered through, part after part; options.allowed is not looked at.
    """
    if _kernels() is None:
        return _reference(parts, query, options)
    pieces = _pieces(parts, options.num_threads)
    rows = _rows(np.array([0, query.term_ids.size]), query.term_ids, query.weights)
    best = _no_scores(parts, rows, options)
    if len(pieces) > len(parts):  # then no piece knows what others find
        found = list(
            _pool(options.num_threads).map(
                lambda piece: _search_piece(parts, piece, rows, options, best.copy()), pieces
            )
        )
    else:
        found = [_search_piece(parts, piece, rows, options, best) for piece in pieces]
    return _merged(parts, pieces, found, 0, query, options)


def search_parts_many(
    parts: Sequence[Part], queries: SparseVectors, options: SearchOptions
) -> Iterator[Found]:
    """Answer each query as search_parts does, in order, sharing queries among threads."""
    if _kernels() is None:
        yield from (_reference(parts, query, options) for query in queries)
        return
    pieces = _pieces(parts, 1)

    def answer(start: int) -> list[Found]:
        batch = queries[start : start + QUERIES_PER_CALL]
        rows = _rows(batch.offsets, batch.term_ids, batch.weights)
        best = _no_scores(parts, rows, options)
        found = [_search_piece(parts, piece, rows, options, best) for piece in pieces]
        return [_merged(parts, pieces, found, i, batch[i], options) for i in range(len(batch))]

    starts = range(0, len(queries), QUERIES_PER_CALL)
    threads = _pool(options.num_threads) if options.num_threads > 1 else None
    for answers in threads.map(answer, starts) if threads else map(answer, starts):
        yield from answers


def _pieces(parts: Sequence[Part], num_threads: int) -> list[Piece]:
    """Return what each compiled call searches: a part, or some blocks of it for a thread.

    The largest comes first, because what it finds tells best what others need not look at.
    """
    pieces = []
    for place, (postings, _) in enumerate(parts):
        num_blocks = postings.lists.num_blocks
        cuts = max(1, min(num_threads, num_blocks // LEAST_BLOCKS))
        ends = [num_blocks * i // cuts for i in range(cuts + 1)]
        pieces += [Piece(place, first, end) for first, end in zip(ends[:-1], ends[1:])]
    if len(pieces) > 1:
        pieces.sort(key=lambda piece: -parts[piece.part][0].num_docs)
    return pieces


def _rows(offsets: OffsetArray, term_ids: IdArray, weights: FloatArray) -> Rows:
    # Kernels are compiled for each kind of array: copies are always contiguous and writable.
    return np.array(offsets), np.array(term_ids), np.array(weights)


def _no_scores(parts: Sequence[Part], rows: Rows, options: SearchOptions) -> FloatArray:
    """Return room for the best scores of all parts, float32 (Q, k), of which there are none yet."""
    num_docs = sum(postings.num_docs for postings, _ in parts)
    return np.zeros((rows[0].size - 1, max(1, min(int(options.k), num_docs))), dtype=np.float32)


def _search_piece(
    parts: Sequence[Part], piece: Piece, rows: Rows, options: SearchOptions, best: FloatArray
) -> tuple[IdArray, FloatArray, list[int]]:
    """Answer a few queries from one piece, in one compiled call.

    Returns doc_ids int32 and scores float32, (Q, k), and how many of each row are hits, or a
    negative number for a query that the kernels refuse.
    """
    postings, allowed = parts[piece.part]
    num_queries, k = best.shape
    shape = num_queries, max(1, min(k, postings.num_docs))
    doc_ids, scores = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.float32)
    counts = np.empty(num_queries, dtype=np.int64)
    _kernels().search_queries(
        postings.lists,
        *rows,
        k,
        float(options.alpha),
        allowed.allowed,
        allowed.doc_ids,
        piece.first_block,
        piece.end_block,
        best,
        *_scratch(postings),
        doc_ids,
        scores,
        counts,
    )
    return doc_ids, scores, counts.tolist()


def _merged(
    parts: Sequence[Part],
    pieces: Sequence[Piece],
    found: Sequence[tuple[IdArray, FloatArray, list[int]]],
    row: int,
    query: SparseVector,
    options: SearchOptions,
) -> Found:
    """Put together what all pieces have found for one query, in true order."""
    if any(counts[row] < 0 for _, _, counts in found):
        as_rows(query).check()  # which says what is wrong, unless float32 cannot hold the scores
        return _reference(parts, query, options)
    if len(found) == 1:
        doc_ids, scores, counts = found[0]
        return doc_ids[row, : counts[row]], scores[row, : counts[row]]
    starts = starts_of(parts)
    filled = [i for i, (_, _, counts) in enumerate(found) if counts[row]]
    if not filled:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
    ids = np.concatenate(
        [found[i][0][row, : found[i][2][row]] + np.int32(starts[pieces[i].part]) for i in filled]
    )
    scores = np.concatenate([found[i][1][row, : found[i][2][row]] for i in filled])
    order = np.lexsort((ids, -scores))
    ids, scores = ids[order], scores[order]
    # Neighbours that float32 sums cannot tell apart form a group, which is ordered exactly.
    slack = np.float32(1 - 2.01 * (len(query) + 1) * UNIT)
    close = scores[1:] >= scores[:-1] * slack
    k = int(options.k)
    if close[:k].any():
        groups = np.concatenate([[0], np.cumsum(~close)])
        last = groups[min(k, groups.size) - 1]
        ids, scores, groups = ids[groups <= last], scores[groups <= last], groups[groups <= last]
        exact = exact_scores(parts, query, ids)
        order = np.lexsort((ids, -exact, groups))
        ids, scores = ids[order], exact[order].astype(np.float32)
    return ids[:k], scores[:k]


def starts_of(parts: Sequence[Part]) -> list[int]:
    """Return the number of each part's first document, and of one after the last."""
    return [0, *accumulate(postings.num_docs for postings, _ in parts)]


def exact_scores(parts: Sequence[Part], query: SparseVector, ids: IdArray) -> NDArray[np.float64]:
    """Return the float64 scores of some documents, numbered through all parts."""
    scores = np.zeros(ids.size, dtype=np.float64)
    starts = starts_of(parts)
    own_part = np.searchsorted(starts, ids, side="right") - 1
    for place in np.unique(own_part).tolist():
        own = own_part == place
        own_scores = np.empty(np.count_nonzero(own), dtype=np.float64)
        _kernels().exact_scores_of(
            parts[place][0].lists,
            *_rows(np.zeros(0, dtype=np.int64), query.term_ids, query.weights)[1:],
            ids[own] - np.int32(starts[place]),
            own_scores,
        )
        scores[own] = own_scores
    return scores


def search_reference(postings: Postings, query: SparseVector, options: SearchOptions) -> Found:
    """Do as search, in NumPy alone and in float64: the meaning of what the kernels compute.

    Source: term-at-a-time evaluation, Turtle and Flood 1995, "Query Evaluation", section 2.
    """
    return _reference([(postings, options.allowed)], query, options)


def _reference(parts: Sequence[Part], query: SparseVector, options: SearchOptions) -> Found:
    """Do as search_parts, in the way of search_reference."""
    as_rows(query).check()
    all_scores = [np.zeros(0)]
    for postings, allowed in parts:
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
    parts: Sequence[Postings], query: SparseVector, epsilon: float
) -> tuple[SparseVector, float]:
    """Leave out the terms that cost most for what they can add, together at most epsilon.

    Returns the shorter query and the most that a score can lose by it.
    """
    ids, weights = query.term_ids, query.weights
    in_range = not ids.size or 0 <= ids.min() <= ids.max() < query.num_terms
    if not (in_range and np.all((weights > 0) & (weights < np.inf))):
        as_rows(query).check()  # which says what is wrong
    bounds, lengths = np.zeros(ids.size), np.zeros(ids.size, dtype=np.int64)
    for lists in (postings.lists for postings in parts):
        bounds = np.maximum(bounds, weights.astype(np.float64) * lists.peaks[ids])
        first = ids.astype(np.int64) * lists.num_blocks
        lengths += lists.offsets[first + lists.num_blocks] - lists.offsets[first]
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
    if kept is None or kept[0].size < width or kept[1].size < room:
        # Not smaller than before, as an index may consist of parts of many sizes.
        widest, most = (kept[0].size, kept[1].size) if kept else (0, 0)
        kept = (
            np.empty(max(width, widest), dtype=np.float32),
            np.empty(max(room, most), dtype=np.int64),
            np.empty(max(room, most), dtype=np.int64),
        )
        _local.kept = kept
    return kept[0][:width], kept[1], kept[2]


@lru_cache(maxsize=8)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Return threads that stay, so that their scratch does too."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="minisplade")


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
