"""The demonstration: the Python standard library's own documentation, made searchable.

Nothing is downloaded: the docstrings of modules, classes and public functions are read from the
source files of the Python that runs this, without importing them.
"""

import ast
import inspect
import logging
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from minisplade.encoder import SparseEncoder
from minisplade.errors import IndexFormatError
from minisplade.index import Index
from minisplade.records import Record
from minisplade.runtime import cache_dir

logger = logging.getLogger("minisplade")

QUESTIONS = (
    "how do I compress a file",
    "parse command line arguments",
    "send an email",
    "random number from normal distribution",
    "run another program and read its output",
)

# Test suites, and programs that happen to be written in Python, document nothing for users.
SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "ensurepip"}

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def standard_library() -> Iterator[Record]:
    """Yield one record per documented module, class and public function, in name order."""
    seen: set[str] = set()
    for module in sorted(sys.stdlib_module_names - SKIPPED):
        if not module.startswith("_"):
            for name, docstring in _docstrings(module):
                # A package may have a function named like one of its modules.
                if docstring and name not in seen:
                    seen.add(name)
                    yield _record(name, docstring)


def _docstrings(module: str) -> Iterator[tuple[str, str | None]]:
    """Yield the dotted names that a top-level module documents, with what it says of them."""
    root = Path(sysconfig.get_path("stdlib"))
    if (root / f"{module}.py").is_file():
        yield from _from_source(module, root / f"{module}.py")
    elif (root / module).is_dir():
        for path in sorted((root / module).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if SKIPPED.isdisjoint(parts) and not any(part.startswith("_") for part in parts):
                yield from _from_source(".".join(parts), path)
    else:
        yield from _from_compiled(module)


def load_demo_index(encoder: SparseEncoder) -> Index | None:
    """Return the index that build_demo_index made for this Python and model, if it is there."""
    try:
        return Index.load(_index_path(encoder), encoder)
    except IndexFormatError:
        return None  # absent, or written by another version of minisplade


def build_demo_index(encoder: SparseEncoder, show_progress_bar: bool = False) -> Index:
    """Encode the documentation of the standard library, and keep the index in the cache."""
    records = list(standard_library())
    texts = [record.text for record in records]
    vectors = encoder.encode_document(texts, show_progress_bar=show_progress_bar)
    index = Index.from_vectors(vectors, [record.key for record in records], texts, encoder)
    try:
        index.save(_index_path(encoder))
    except OSError as error:
        logger.warning("the index cannot be kept for next time: %s", error)
    return index


def _index_path(encoder: SparseEncoder) -> Path:
    version = sys.version.split()[0]
    return cache_dir() / "demo" / f"python-{version}-{encoder.folder.name}.minisplade"


def _from_source(module: str, path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the docstrings of one source file, without running it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes, which are not ours to mend
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # a few files of some versions are templates, not Python
    yield module, ast.get_docstring(tree)
    yield from _definitions(module, tree)


def _definitions(scope: str, node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, str | None]]:
    """Yield public classes, functions and methods."""
    for child in node.body:
        if isinstance(child, Definition) and not child.name.startswith("_"):
            name = f"{scope}.{child.name}"
            yield name, ast.get_docstring(child)
            if isinstance(child, ast.ClassDef):
                yield from _definitions(name, child)


def _from_compiled(module: str) -> Iterator[tuple[str, str | None]]:
    """Yield the docstrings of a module that is written in C, such as math or zlib."""
    spec = find_spec(module)
    origin = (spec and spec.origin) or ""
    if origin != "built-in" and not origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return  # not of this platform
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are deprecated
            loaded = import_module(module)
    except ImportError:
        return  # needs a library that is not on this machine
    yield module, inspect.getdoc(loaded)
    yield from _members(module, loaded)


def _members(scope: str, owner: Any) -> Iterator[tuple[str, str | None]]:
    """Yield the public functions, classes and methods of a compiled module or class."""
    for name, value in sorted(vars(owner).items()):
        if name.startswith("_") or not (inspect.isroutine(value) or inspect.isclass(value)):
            continue
        yield f"{scope}.{name}", inspect.getdoc(value)
        if inspect.isclass(value) and not inspect.isclass(owner):
            yield from _members(f"{scope}.{name}", value)


def _record(name: str, docstring: str) -> Record:
    """Put the name before the docstring, in words, because it often says most."""
    return Record(name, f"{name.replace('.', ' ').replace('_', ' ')}: {docstring}")
