"""How kernels become machine code: compiled by Numba once, and loaded without it ever after.

Importing Numba takes longer than encoding a hundred texts, and 90 MB. So what it compiles is kept
as object files, one for each kernel and kinds of arguments, and a later process hands these to
LLVM's loader, which takes milliseconds. A file is used only on a CPU with the features that it was
made for, and by the version of the kernels' source that it was made from.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import logging
import os
import struct
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import FunctionType
from typing import Any, overload

import numpy as np

from minisplade.files import replacing
from minisplade.kernels.tiles import Tile
from minisplade.runtime import compiled_code_dirs, cpu_features

logger = logging.getLogger("minisplade")

UNCOMPILED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
"""Numba's own switch: kernels then run as the Python that they are written in."""

Kind = Any
"""A number's name, an array's (character, axes), a named tuple's (class, kinds), a BundleKind."""

Call = Callable[[], Any]
Bind = Callable[[list[Any]], Call]
"""What machine code becomes here: a function of its arguments that returns one of none."""

NUMBERS: dict[type, str] = {
    **dict.fromkeys((int, bool, np.int32, np.int64), "int64"),
    **dict.fromkeys((float, np.float64), "float64"),
    np.float32: "float32",
}
"""Kinds of numbers by their types."""
WORDS = {"int64": "q", "float64": "d", "float32": "d"}
"""Numbers as struct packs them into the 8 bytes of a word."""
RESULTS: dict[str, Any] = {
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "uint64": ctypes.c_uint64,
    "float64": ctypes.c_double,
    "float32": ctypes.c_float,
    "bool": ctypes.c_bool,
    "none": ctypes.c_void_p,
}


class Kernel:
    """A function of contiguous arrays, numbers, and named tuples of these, which allocates nothing.

    It runs without the interpreter's lock. What it is called with must be as its docstring says:
    machine code reads past the end of an array silently.
    """

    def __init__(
        self, function: Callable[..., Any], flags: Collection[str] = (), inline: bool = False
    ) -> None:
        """Take the function as it is; flags are what LLVM may assume about floats.

        inline: copy the code to wherever another kernel calls it. Posting lists are some seventy
        numbers to machine code, and passing them costs as much as looking up a document.
        """
        self.function, self.flags, self.inline = function, tuple(sorted(flags)), inline
        self.loaded: dict[Any, Bind] = {}
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any) -> Any:
        """Run the function, compiled if need be."""
        return self.bound(*args)()

    def bound(self, *args: Any) -> Call:
        """Prepare a call that is made many times with the same arguments, which it keeps."""
        if UNCOMPILED:
            values = (arg.value if type(arg) is Bundle else arg for arg in args)
            return functools.partial(self.function, *values)
        given = [a if type(a) is Bundle or type(a) in NUMBERS else Bundle(a) for a in args]
        kinds = tuple([a.kind if type(a) is Bundle else NUMBERS[type(a)] for a in given])
        bind = self.loaded.get(kinds)
        if bind is None:
            with _Loading.lock:  # threads that come meanwhile wait for what one of them makes
                bind = self.loaded.get(kinds) or self._load(kinds)
                self.loaded[kinds] = bind
        return bind(given)

    def _load(self, kinds: tuple[Kind, ...]) -> Bind:
        """Find the object file for some kinds of arguments, or make it."""
        name = f"{self.function.__name__}-{_key(self, kinds)}.o"
        for folder in compiled_code_dirs():
            content = _read(folder / name)
            if content is not None:
                return _link(content, kinds)
        content = compile_object(self, kinds)
        for folder in compiled_code_dirs():
            try:
                with replacing(folder / name) as file:
                    file.write(content)
                break
            except OSError as error:
                logger.debug("%s cannot be kept in %s: %s", name, folder, error)
        return _link(content, kinds)


@overload
def kernel(function: Callable[..., Any]) -> Kernel: ...
@overload
def kernel(
    *, flags: Collection[str] = (), inline: bool = False
) -> Callable[[Callable[..., Any]], Kernel]: ...
def kernel(
    function: Callable[..., Any] | None = None,
    *,
    flags: Collection[str] = (),
    inline: bool = False,
) -> Kernel | Callable[[Callable[..., Any]], Kernel]:
    """Make a function a Kernel; flags such as "reassoc" let LLVM run a sum in lanes."""
    if function is None:
        return functools.partial(Kernel, flags=flags, inline=inline)
    return Kernel(function)


class Bundle:
    """An array, or a named tuple of arrays and numbers, that many calls take.

    What machine code wants to know of it is written down once, in a table of words of 8 bytes.
    """

    __slots__ = ("address", "kind", "table", "value")

    def __init__(self, value: Any) -> None:
        """Take an array, or a named tuple of them, that stays where it is in memory."""
        self.value, self.kind = value, BundleKind.of(kind_of(value))
        words: list[Any] = []
        _flatten(value, words)
        packed = struct.pack(_layout(self.kind.content), *words)
        self.table = ctypes.create_string_buffer(packed, len(packed))
        self.address = ctypes.addressof(self.table)


class BundleKind:
    """What a Bundle is of. There is one for each content, so that comparing them is quick."""

    __slots__ = ("content",)
    known: dict[Kind, BundleKind] = {}

    def __init__(self, content: Kind) -> None:
        """Take the kind of an array or of a named tuple."""
        self.content = content

    @classmethod
    def of(cls, content: Kind) -> BundleKind:
        """Return the one for some content."""
        return cls.known.get(content) or cls.known.setdefault(content, cls(content))

    def __repr__(self) -> str:
        """Say what it is of, in the same words in every process."""
        return repr(self.content)


def kind_of(arg: Any) -> Kind:
    """Name the kind of what a table is of: an array, a named tuple or a number in one."""
    if isinstance(arg, np.ndarray):
        if not arg.flags.c_contiguous:
            raise ValueError(f"kernels take contiguous arrays; strides are {arg.strides}")
        return arg.dtype.char, arg.ndim
    if isinstance(arg, tuple):
        return type(arg), tuple(map(kind_of, arg))
    return NUMBERS[type(arg)]


def _flatten(arg: Any, words: list[Any]) -> None:
    """Append what an argument is to machine code: for arrays, the fields of Numba's array struct.

    Those are the owner and its object, which nobody asks for here, the number of items, the size
    of one, the address, the shape, and the strides in bytes.
    """
    if isinstance(arg, np.ndarray):
        words += (0, 0, arg.size, arg.itemsize, arg.ctypes.data, *arg.shape, *arg.strides)
    elif isinstance(arg, tuple):
        for field in arg:
            _flatten(field, words)
    else:
        words.append(arg)


def _layout(kind: Kind) -> str:
    """Name the words that _flatten makes of an argument, as struct does."""
    if isinstance(kind, str):
        return WORDS[kind]
    if isinstance(kind[0], str):
        return "q" * (5 + 2 * kind[1])
    return "".join(map(_layout, kind[1]))


def compile_object(kernel: Kernel, kinds: tuple[Kind, ...]) -> bytes:
    """Compile a kernel with Numba; returns a line of JSON and the object file after it."""
    from llvmlite import binding
    from numba.core import compiler, registry, types
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.cpu import FastMathOptions

    from minisplade.kernels.entry import entry_module

    logger.info("compiling %s", kernel.function.__name__)
    flags = compiler.Flags()
    flags.nrt = False  # kernels allocate nothing, so they need nothing of Numba's at run time
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    flags.fastmath = FastMathOptions(set(kernel.flags))
    target = registry.cpu_target
    argument_types = tuple(map(_numba_type, kinds))
    function = _for_numba(kernel.function)
    contexts = target.typing_context, target.target_context
    with global_compiler_lock:
        result = compiler.compile_extra(*contexts, function, argument_types, None, flags, {})
        # Numba links and optimises the module here; the machine code is then LLVM's to give.
        result.library._ensure_finalized()
        described, convention = result.fndesc, target.target_context.call_conv
        native = convention.get_function_type(described.restype, described.argtypes)
        symbol, sizes = described.llvm_cfunc_wrapper_name, [_words_of(kind) for kind in kinds]
        entry = entry_module(symbol, described.llvm_func_name, native, sizes)
        module = binding.parse_assembly(str(entry))
        module.link_in(result.library._final_module, preserve=True)
        machine_code: bytes = target.target_context.codegen()._tm.emit_object(module)
    returns = {types.none: "none", types.boolean: "bool"}.get(
        result.signature.return_type, str(result.signature.return_type)
    )
    head = {
        "symbol": symbol,
        "returns": returns,
        "sha256": hashlib.sha256(machine_code).hexdigest(),
    }
    return json.dumps(head).encode() + b"\n" + machine_code


def _words_of(kind: Kind) -> int | None:
    """Count the words in the table of an argument that has one."""
    return len(_layout(kind.content)) if isinstance(kind, BundleKind) else None


def _numba_type(kind: Kind) -> Any:
    """Translate a kind of argument into Numba's words."""
    from numba import from_dtype, types

    if isinstance(kind, BundleKind):
        return _numba_type(kind.content)
    if isinstance(kind, str):
        return getattr(types, kind)
    if isinstance(kind[0], str):
        return types.Array(from_dtype(np.dtype(kind[0])), kind[1], "C")
    return types.containers.BaseTuple.from_types(tuple(map(_numba_type, kind[1])), kind[0])


@functools.cache
def _for_numba(function: Callable[..., Any]) -> FunctionType:
    """Copy a function so that what it calls of this package is something that Numba knows."""
    names = dict(function.__globals__)
    for name in function.__code__.co_names:
        called = names.get(name)
        if isinstance(called, Kernel):
            names[name] = _jitted(called.function, called.flags, called.inline)
        elif isinstance(called, Tile):
            names[name] = called.for_numba
        elif isinstance(called, FunctionType):
            names[name] = _jitted(called, (), False)
    copy = FunctionType(function.__code__, names, function.__name__)
    copy.__module__ = function.__module__
    return copy


@functools.cache
def _jitted(function: Callable[..., Any], flags: tuple[str, ...], inline: bool) -> Any:
    """Let Numba compile a function when another one that calls it is compiled."""
    from numba import njit

    # error_model: a division that cannot fail needs no branch, so that loops become vectors.
    options = {"error_model": "numpy", "fastmath": set(flags), "forceinline": inline}
    return njit(**options)(_for_numba(function))


def _read(path: Path) -> bytes | None:
    """Return a whole, undamaged file that compile_object made, or None."""
    try:
        content = path.read_bytes()
        head, _, machine_code = content.partition(b"\n")
        right = json.loads(head)["sha256"] == hashlib.sha256(machine_code).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if right else None


class _Loading:
    """The lock of the thread that loads or compiles; a forked process starts with a new one."""

    lock = threading.Lock()

    @classmethod
    def renew(cls) -> None:
        """Forget a lock whose thread is not in this process."""
        cls.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Loading.renew)

_engines: list[Any] = []  # machine code lives as long as the engine that loaded it


def _link(content: bytes, kinds: tuple[Kind, ...]) -> Bind:
    """Load machine code into this process."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    # Named in code that gives memory back. Kernels own none, so it is never called.
    if binding.address_of_symbol("NRT_MemInfo_call_dtor") is None:
        anything = ctypes.cast(ctypes.pythonapi.Py_IncRef, ctypes.c_void_p).value
        binding.add_symbol("NRT_MemInfo_call_dtor", anything)
    head, _, machine_code = content.partition(b"\n")
    described = json.loads(head)
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    _engines.append(engine)
    address = engine.get_function_address(described["symbol"])
    function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p)(address)
    table = struct.Struct("".join("q" if isinstance(k, BundleKind) else WORDS[k] for k in kinds))
    result_type = RESULTS[described["returns"]]

    def bind(args: list[Any]) -> Call:
        words = table.pack(*[arg.address if type(arg) is Bundle else arg for arg in args])

        # A default keeps the tables alive, whose addresses are all that words has of them.
        def call(_: list[Any] = args) -> Any:
            result = result_type()
            status = function(words, ctypes.byref(result))
            if status not in (0, -2):
                raise RuntimeError(f"kernel ended with status {status}")
            return result.value

        return call

    return bind


def _key(kernel: Kernel, kinds: tuple[Kind, ...]) -> str:
    """Digest what machine code depends on: source, kinds of arguments, and the CPU."""
    from llvmlite.binding import get_default_triple, get_host_cpu_name

    code = kernel.function.__code__
    parts = [source_digest(), repr(kinds), repr(kernel.flags), code.co_code.hex()]
    cpu = os.environ.get("NUMBA_CPU_NAME") or get_host_cpu_name()
    parts += [get_default_triple(), cpu, *sorted(cpu_features())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@functools.cache
def source_digest() -> str:
    """Digest the source of all kernels, because they call each other."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
