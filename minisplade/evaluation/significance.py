"""Whether a difference between two systems is more than chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERMUTATIONS = 10_000


def randomization_test(
    first: Sequence[float], second: Sequence[float], permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Return the two-sided p-value of the difference of means of paired values.

    Fisher's randomization test: how often a difference at least as large comes about when each
    pair is swapped by the toss of a coin, the observed one counted among them (Smucker, Allan and
    Carterette 2007, "A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation").
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    observed = abs(differences.sum())
    rng = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, permutations, 1000):  # few at a time, to bound memory
        tosses = rng.integers(0, 2, (min(1000, permutations - start), differences.size))
        sums = np.abs((2 * tosses - 1) @ differences)
        # Sums of the same numbers in another order may differ in their last bits.
        as_large += int(np.count_nonzero(sums >= observed * (1 - 1e-12) - 1e-15))
    return (as_large + 1) / (permutations + 1)
