"""Compiled loops over flat arrays: the only modules that import Numba, where one is compiled.

Every kernel also runs uncompiled, with NUMBA_DISABLE_JIT=1; tests compare them with slow versions.
"""
