"""A short vocabulary for writing kernels in LLVM's own language, where Numba's is too far away."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba.core import cgutils

INT1, INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
FLOAT32 = ir.FloatType()

Value = Any  # of llvmlite, which has no types


class Emitter:
    """Appends instructions to the function that is being compiled."""

    def __init__(self, context: Any, builder: Any, arg_types: Any) -> None:
        """Take what Numba hands to a lowering."""
        self.context, self.builder, self.arg_types = context, builder, arg_types

    def pointer(self, place: int, array: Value, start: Value, element: Any) -> Value:
        """Point at an element of the array that is the argument at a place."""
        data = self.context.make_array(self.arg_types[place])(self.context, self.builder, array)
        return self.builder.bitcast(self.builder.gep(data.data, [start]), element.as_pointer())

    def parts(self, values: Value) -> list[Value]:
        """Take a tuple of numbers apart."""
        return list(cgutils.unpack_tuple(self.builder, values))

    def moved(self, pointer: Value, steps: Value | int, element: Any | None = None) -> Value:
        """Move a pointer on by some elements, and let it point at another type."""
        moved = self.builder.gep(pointer, [_number(steps)])
        return moved if element is None else self.builder.bitcast(moved, element.as_pointer())

    def load(self, pointer: Value, place: Value | int = 0) -> Value:
        """Load an element, which need not be aligned."""
        value = self.builder.load(self.moved(pointer, place))
        value.align = 1
        return value

    def store(self, value: Value, pointer: Value, place: Value | int = 0) -> None:
        """Store an element, which need not be aligned."""
        self.builder.store(value, self.moved(pointer, place)).align = 1

    def variable(self, value: Value) -> Value:
        """Keep a value that a loop changes; LLVM turns it into a register."""
        variable = cgutils.alloca_once(self.builder, value.type)
        self.builder.store(value, variable)
        return variable

    def splat(self, value: Value, lanes: int) -> Value:
        """Repeat a number in every lane of a vector."""
        nothing = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, value, ir.Constant(INT32, 0))
        same = ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes)
        return self.builder.shuffle_vector(first, nothing, same)

    def call(self, name: str, *args: Value, returns: Any) -> Value:
        """Call one of LLVM's intrinsic functions."""
        kind = ir.FunctionType(returns, [arg.type for arg in args])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, args)

    def multiply_add(self, a: Value, b: Value, c: Value) -> Value:
        """Return a b + c, rounded once, in every lane of float32 vectors."""
        return self.call(f"llvm.fma.v{a.type.count}f32", a, b, c, returns=a.type)

    def folded(self, vector: Value, join: Callable[[Value, Value], Value]) -> Value:
        """Join the lanes, lower half with upper half until one is left: the same order always."""
        lanes = vector.type.count
        while lanes > 1:
            lanes //= 2
            halves = [
                self.builder.shuffle_vector(
                    vector,
                    vector,
                    ir.Constant(ir.VectorType(INT32, lanes), list(range(first, first + lanes))),
                )
                for first in (0, lanes)
            ]
            vector = join(*halves)
        return self.builder.extract_element(vector, ir.Constant(INT32, 0))

    def product(self, a: Value, b: Value | int) -> Value:
        """Multiply two int64 numbers."""
        return self.builder.mul(a, _number(b))

    def plus(self, a: Value, b: Value | int) -> Value:
        """Add two int64 numbers."""
        return self.builder.add(a, _number(b))

    def steps(self, count: Value) -> Any:
        """Open a loop as a context manager; its result's index goes from 0 to count - 1."""
        return cgutils.for_range(self.builder, count)

    @contextmanager
    def until_zero(self, variable: Value) -> Iterator[None]:
        """Open a loop that runs while a variable, which it has to change, is not 0."""
        builder = self.builder
        test, body, after = (builder.append_basic_block(name) for name in ("test", "body", "after"))
        builder.branch(test)
        builder.position_at_end(test)
        left = builder.load(variable)
        more = builder.icmp_unsigned("!=", left, ir.Constant(left.type, 0))
        builder.cbranch(more, body, after)
        builder.position_at_end(body)
        yield
        builder.branch(test)
        builder.position_at_end(after)


def vector(element: Any, lanes: int) -> Any:
    """Name the type of a vector."""
    return ir.VectorType(element, lanes)


def constant(kind: Any, value: Any) -> Value:
    """Make a constant of a type; one number fills all lanes of a vector."""
    if isinstance(kind, ir.VectorType) and not isinstance(value, list):
        value = [value] * kind.count
    return ir.Constant(kind, value)


def _number(value: Value | int) -> Value:
    return ir.Constant(INT64, value) if isinstance(value, int) else value
