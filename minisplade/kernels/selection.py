"""Selecting and sorting the best documents, each packed with its score into one whole number.

A key holds the bits of a positive float32 score above the complement of a document id, so that the
order of keys is the order of hits: higher scores first, equal scores by document.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minisplade.arrays import FloatArray, IdArray
from minisplade.kernels.compiler import kernel
from minisplade.kernels.masks import LANES, reaching
from minisplade.kernels.tiles import lowest_bit

KeyArray = NDArray[np.int64]

ID_MASK = 0x7FFFFFFF
SHORT = 48
"""Up to so many keys, insertion sort beats the set-up of the radix sort."""
RADIX_BITS = 8
DIGITS = 1 << RADIX_BITS

LEAST_LANES = 128
"""Arrays of scores are a multiple of this long, so that no loop over them has a remainder."""


@kernel
def value_at(values: NDArray[Any], rank: int, num_bits: int) -> int:
    """Return the number at a rank, 1 for the largest; 1 <= rank <= values.size.

    values: whole numbers of any kind, from 0 up to num_bits bits. Finds the largest number that
    rank values reach, bit by bit from the highest, until no more than these do: counting goes
    through many values at a time and foresees no branch, which outruns partitioning.
    """
    kind = values.dtype.type
    bound = kind(0)
    for bit in range(num_bits - 1, -1, -1):
        trial = kind(bound | (kind(1) << kind(bit)))
        reached = 0
        for i in range(values.size):
            reached += values[i] >= trial
        if reached >= rank:
            bound = trial
            if reached == rank:
                break
    largest = kind((kind(1) << kind(num_bits - 1)) - kind(1) + (kind(1) << kind(num_bits - 1)))
    least = largest
    for i in range(values.size):
        least = min(least, values[i] if values[i] >= bound else largest)
    return least


@kernel
def score_at(keys: KeyArray, count: int, k: int) -> float:
    """Return the score of the k-th best of keys[:count]; 1 <= k <= count."""
    return score_of(value_at(keys[:count], k, 63))


@kernel
def keep_reaching(keys: KeyArray, count: int, least: float) -> int:
    """Move those of keys[:count] that score least or more to the front; return how many."""
    kept = 0
    for i in range(count):
        key = keys[i]
        keys[kept] = key
        kept += score_of(key) >= least
    return kept


@kernel
def sort_descending(keys: KeyArray, count: int, spare: KeyArray, starts: KeyArray) -> None:
    """Sort keys[:count] by score, highest first; equal scores come out in any order.

    keys, spare: int64, spare at least as long; starts: int64 (DIGITS,), scratch. Long inputs take a
    radix sort over the score bits in which they differ at all.
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
    shift = 0
    source, target = keys, spare
    while (highest - lowest) >> shift:
        starts[:] = 0
        for i in range(count):
            starts[((highest - (source[i] >> 32)) >> shift) & (DIGITS - 1)] += 1
        total = 0
        for digit in range(DIGITS):
            own = starts[digit]
            starts[digit] = total
            total += own
        for i in range(count):
            digit = ((highest - (source[i] >> 32)) >> shift) & (DIGITS - 1)
            target[starts[digit]] = source[i]
            starts[digit] += 1
        source, target = target, source
        shift += RADIX_BITS
    if shift // RADIX_BITS % 2:
        for i in range(count):
            keys[i] = spare[i]


@kernel
def sort_exactly(
    scores: NDArray[np.float64],
    doc_ids: KeyArray,
    merged_scores: NDArray[np.float64],
    merged_ids: KeyArray,
) -> None:
    """Sort documents by score, highest first, and equal scores by document: a merge sort.

    scores: float64 and doc_ids: int64, as many; both are put in order. The others are scratch of
    the same kinds, at least as long.
    """
    size = scores.size
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


@kernel
def collect(
    scores: FloatArray, limit: np.float32, first_doc: int, keys: KeyArray, count: int
) -> int:
    """Append the key of every document that scores limit or more; return the new count.

    scores: float32, a multiple of 128 long, those of documents from first_doc on; limit: positive;
    keys: int64 with room for all.
    """
    # Positive floats compare as their bits do.
    bits = scores.view(np.int32)
    bound = np.float32(limit).view(np.int32)
    for start in range(0, bits.size, LANES):
        mask = reaching(bits, start, bound)
        while mask:
            i = start + lowest_bit(mask)
            keys[count] = (np.int64(bits[i]) << 32) | np.int64(ID_MASK - (first_doc + i))
            count += 1
            mask &= mask - np.uint64(1)
    return count


@kernel
def collect_listed(
    scores: FloatArray,
    limit: np.float32,
    first_doc: int,
    start: int,
    doc_ids: IdArray,
    keys: KeyArray,
    count: int,
) -> int:
    """Do as collect for the documents in doc_ids, int32, alone; in keys they count from start."""
    for doc_id in doc_ids:
        score = scores[doc_id - first_doc]
        if score >= limit:
            keys[count] = make_key(score, start + doc_id)
            count += 1
    return count


@kernel
def score_of_rank(scores: FloatArray, rank: int, spare: KeyArray) -> float:
    """Return a score that at least rank of the documents reach, close to the best such score.

    scores: float32, a multiple of 128 long; rank: 1 or more; spare: int64, at least as long. The
    documents are dealt into lanes; the best of each lane are distinct documents, so the score at
    rank among them is reached by that many. Returns 0 where the lanes are too few.
    """
    bits = scores.view(np.int32)
    lanes = LEAST_LANES
    while (lanes < 512 or lanes < 4 * rank) and 2 * lanes <= bits.size:
        lanes *= 2
    if rank > lanes:
        return 0.0
    best = spare.view(np.int32)[:lanes]
    for i in range(lanes):
        best[i] = bits[i]
    for start in range(lanes, bits.size, lanes):
        row = bits[start : start + lanes]
        for i in range(row.size):
            best[i] = max(best[i], row[i])
    return np.float64(np.int32(value_at(best, rank, 31)).view(np.float32))


@kernel
def score_of(key: int) -> float:
    """Return the score in a key."""
    return np.float64(np.int32(key >> 32).view(np.float32))


@kernel
def document_of(key: int) -> int:
    """Return the document id in a key."""
    return ID_MASK - (key & ID_MASK)


@kernel
def make_key(score: float, doc_id: int) -> int:
    """Pack a positive score and a document id into a key."""
    return int(np.int64(np.float32(score).view(np.int32)) << 32) | (ID_MASK - int(doc_id))
