"""The door to machine code: one function that takes all arguments as one table of words.

Numba spreads an array over seven arguments and more, and a call from Python pays for each. So a
table has one word of 8 bytes for each argument: a number, or the address of a table of its own.
"""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from minisplade.kernels.ir import INT8, INT64, Value, constant

WORDS = INT64.as_pointer()


def entry_module(name: str, symbol: str, kind: Any, sizes: Sequence[int | None]) -> ir.Module:
    """Return a module with a function of that name, which calls another one.

    It takes the table, and a place for the result. symbol, kind: the other function and its type;
    sizes: how many words the table of each argument has, None for a number.
    """
    module = ir.Module(name)
    called = ir.Function(module, kind, symbol)
    entry = ir.Function(module, ir.FunctionType(kind.return_type, [WORDS, INT8.as_pointer()]), name)
    table, result = entry.args
    builder = ir.IRBuilder(entry.append_basic_block())
    words: list[Value] = []
    for place, size in enumerate(sizes):
        word = _load(builder, table, place)
        if size is None:
            words.append(word)
        else:
            own = builder.inttoptr(word, WORDS)
            words += (_load(builder, own, i) for i in range(size))
    # Numba's convention: places for the result and for an exception come first.
    result_type, failure_type, *types = kind.args
    first = builder.bitcast(result, result_type), builder.alloca(failure_type.pointee)
    arguments = [_read_as(builder, word, wanted) for word, wanted in zip(words, types, strict=True)]
    builder.ret(builder.call(called, [*first, *arguments]))
    return module


def _load(builder: Any, table: Value, place: int) -> Value:
    """Read one word of a table."""
    return builder.load(builder.gep(table, [constant(INT64, place)]))


def _read_as(builder: Any, word: Value, kind: Any) -> Value:
    """Take a word for what it stands for."""
    if isinstance(kind, ir.PointerType):
        return builder.inttoptr(word, kind)
    if isinstance(kind, ir.IntType):
        return word
    number = builder.bitcast(word, ir.DoubleType())
    return number if isinstance(kind, ir.DoubleType) else builder.fptrunc(number, kind)
