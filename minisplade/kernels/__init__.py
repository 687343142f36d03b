"""Compiled loops over flat arrays: the only modules that import Numba.

Every kernel also runs uncompiled, with NUMBA_DISABLE_JIT=1, and has a naive twin in the tests.
"""
