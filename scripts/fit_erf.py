"""Fit the coefficients of minisplade.functional.erf and print them.

The fit minimises the largest absolute error of x P(x²) / Q(x²) against erf over [0, 4], by
iteratively reweighted linear least squares (Lawson's method for a linearised rational fit).
Needs only numpy. Run: python scripts/fit_erf.py
"""

import math

import numpy as np

NUMERATOR_DEGREE = 5
DENOMINATOR_DEGREE = 5
LIMIT = 4.0


def fit() -> tuple[np.ndarray, np.ndarray, float]:
    """Return numerator and denominator coefficients, lowest power first, and the largest error."""
    x = LIMIT * np.sin(np.linspace(0.0005, np.pi / 2, 6000))
    target = np.array([math.erf(value) for value in x])
    square = x * x
    scale = LIMIT * LIMIT  # fit in square / scale, which is better conditioned
    powers_p = (square[:, None] / scale) ** np.arange(NUMERATOR_DEGREE + 1) * x[:, None]
    powers_q = (square[:, None] / scale) ** np.arange(1, DENOMINATOR_DEGREE + 1)
    weight = np.ones_like(x)
    denominator = np.ones_like(x)
    best: tuple[np.ndarray, np.ndarray, float] | None = None
    for _ in range(400):
        rows = np.hstack([powers_p, -powers_q * target[:, None]]) * (weight / denominator)[:, None]
        solution, *_ = np.linalg.lstsq(rows, target * weight / denominator, rcond=None)
        p, q = solution[: NUMERATOR_DEGREE + 1], solution[NUMERATOR_DEGREE + 1 :]
        denominator = 1 + powers_q @ q
        error = np.abs(powers_p @ p / denominator - target)
        if best is None or error.max() < best[2]:
            best = p, np.concatenate([[1.0], q]), float(error.max())
        weight = weight * np.sqrt(error / error.mean() + 1e-3)
        weight /= weight.mean()
    assert best is not None
    p, q, largest = best
    return p / scale ** np.arange(p.size), q / scale ** np.arange(q.size), largest


if __name__ == "__main__":
    p, q, largest = fit()
    print("ERF_NUMERATOR =", tuple(float(f"{value:.10g}") for value in p[::-1]))
    print("ERF_DENOMINATOR =", tuple(float(f"{value:.10g}") for value in q[::-1]))
    print(f"# largest error in float64: {largest:.1e}")
