"""Selecting and sorting the best documents, each packed with its score into one whole number.

A key holds the bits of a positive float32 score above the complement of a document id, so that the
order of keys is the order of hits: higher scores first, equal scores by document.
"""

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray
from minisplade.kernels.jit import jitted

KeyArray = NDArray[np.int64]

ID_MASK = 0x7FFFFFFF
SHORT = 48
"""Up to so many keys, insertion sort beats the set-up of the radix sort."""
RADIX_BITS = 8


@jitted
def partition_largest(keys: KeyArray, count: int, k: int) -> int:
    """Move the k largest of keys[:count] to the front, in any order; return the smallest of them.

    keys: int64; 1 <= k <= count. Source: Hoare 1961, "Algorithm 65: Find".
    """
    low, high, target = 0, count - 1, k - 1
    while low < high:
        first, middle, last = keys[low], keys[(low + high) >> 1], keys[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return keys[target]


@jitted
def sort_descending(keys: KeyArray, count: int, spare: KeyArray) -> None:
    """Sort keys[:count] by score, highest first; equal scores come out in any order.

    keys, spare: int64, spare at least as long. Long inputs take a radix sort over the score bits
    in which they differ at all.
    """
    if count <= SHORT:
        for i in range(1, count):
            key, j = keys[i], i
            while j > 0 and keys[j - 1] < key:
                keys[j] = keys[j - 1]
                j -= 1
            keys[j] = key
        return
    highest = lowest = keys[0] >> 32
    for i in range(count):
        score = keys[i] >> 32
        highest = max(highest, score)
        lowest = min(lowest, score)
    size = 1 << RADIX_BITS
    starts = np.empty(size, np.int64)
    shift = 0
    source, target = keys, spare
    while (highest - lowest) >> shift:
        starts[:] = 0
        for i in range(count):
            starts[((highest - (source[i] >> 32)) >> shift) & (size - 1)] += 1
        total = 0
        for digit in range(size):
            own = starts[digit]
            starts[digit] = total
            total += own
        for i in range(count):
            digit = ((highest - (source[i] >> 32)) >> shift) & (size - 1)
            target[starts[digit]] = source[i]
            starts[digit] += 1
        source, target = target, source
        shift += RADIX_BITS
    if shift // RADIX_BITS % 2:
        for i in range(count):
            keys[i] = spare[i]


@jitted
def sort_exactly(scores: NDArray[np.float64], doc_ids: KeyArray) -> None:
    """Sort documents by score, highest first, and equal scores by document: a merge sort.

    scores: float64 and doc_ids: int64, as many; both are put in order.
    """
    size = scores.size
    merged_scores, merged_ids = np.empty(size, np.float64), np.empty(size, np.int64)
    width = 1
    while width < size:
        for start in range(0, size, 2 * width):
            i, middle = start, min(start + width, size)
            j, end = middle, min(start + 2 * width, size)
            for place in range(start, end):
                left = j == end
                if i < middle and j < end:
                    left = scores[i] > scores[j]
                    if scores[i] == scores[j]:
                        left = doc_ids[i] < doc_ids[j]
                chosen = i if left else j
                merged_scores[place], merged_ids[place] = scores[chosen], doc_ids[chosen]
                if left:
                    i += 1
                else:
                    j += 1
        for i in range(size):
            scores[i], doc_ids[i] = merged_scores[i], merged_ids[i]
        width *= 2


@jitted
def collect(
    scores: FloatArray, limit: np.float32, first_doc: int, keys: KeyArray, count: int
) -> int:
    """Append the key of every document that scores limit or more; return the new count.

    scores: float32, a multiple of 128 long, those of documents from first_doc on; limit: positive;
    keys: int64 with room for all.
    """
    # Positive floats compare as their bits do, and the largest of whole numbers takes one
    # instruction for eight of them; most runs of 128 documents go by without a branch.
    bits = scores.view(np.int32)
    bound = np.float32(limit).view(np.int32)
    for start in range(0, bits.size, 128):
        run = bits[start : start + 128]
        highest = np.int32(0)
        for i in range(128):
            highest = max(highest, run[i])
        if highest >= bound:
            for i in range(128):
                if run[i] >= bound:
                    doc_id = first_doc + start + i
                    keys[count] = (np.int64(run[i]) << 32) | np.int64(ID_MASK - doc_id)
                    count += 1
    return count


@jitted
def collect_listed(
    scores: FloatArray,
    limit: np.float32,
    first_doc: int,
    doc_ids: IdArray,
    keys: KeyArray,
    count: int,
) -> int:
    """Do as collect, for the documents in doc_ids, int32, alone."""
    for doc_id in doc_ids:
        score = scores[doc_id - first_doc]
        if score >= limit:
            keys[count] = make_key(score, doc_id)
            count += 1
    return count


@jitted
def score_of_rank(scores: FloatArray, rank: int, spare: KeyArray) -> float:
    """Return a score that at least rank of the documents reach, close to the best such score.

    scores: float32, a power of two long; rank: 1 or more; spare: int64, at least as long. The
    documents are dealt into lanes; the best of each lane are distinct documents, so the score at
    rank among them is reached by that many. Returns 0 where the lanes are too few.
    """
    bits = scores.view(np.int32)
    lanes = min(512, bits.size)
    while lanes < 4 * rank and lanes < bits.size:
        lanes *= 2
    if rank > lanes:
        return 0.0
    best = bits[:lanes].copy()
    for start in range(lanes, bits.size, lanes):
        row = bits[start : start + lanes]
        for i in range(lanes):
            best[i] = max(best[i], row[i])
    for i in range(lanes):
        spare[i] = best[i]
    return np.float64(np.int32(partition_largest(spare, lanes, rank)).view(np.float32))


@jitted
def score_of(key: int) -> float:
    """Return the score in a key."""
    return np.float64(np.int32(key >> 32).view(np.float32))


@jitted
def make_key(score: float, doc_id: int) -> int:
    """Pack a positive score and a document id into a key."""
    return int(np.int64(np.float32(score).view(np.int32)) << 32) | (ID_MASK - int(doc_id))
