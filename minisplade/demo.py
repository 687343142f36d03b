"""The demonstration: the Python standard library's own documentation, made searchable.

Nothing is downloaded: the docstrings of modules, classes and public functions are read from the
source files of the Python that runs this, without importing them.
"""

import ast
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from minisplade.encoder import SparseEncoder
from minisplade.errors import IndexFormatError
from minisplade.hub import cache_dir
from minisplade.index import Index
from minisplade.records import Record

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
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if SKIPPED.isdisjoint(parts) and parts[0] in sys.stdlib_module_names and module:
            if not any(part.startswith("_") for part in module.split(".")):
                yield from _from_source(module, path)
    for module in sorted(sys.stdlib_module_names):
        if not module.startswith("_") and not list(root.glob(f"{module}.py")):
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
    index.save(_index_path(encoder))
    return index


def _index_path(encoder: SparseEncoder) -> Path:
    version = sys.version.split()[0]
    return cache_dir() / "demo" / f"python-{version}-{encoder.folder.name}.minisplade"


def _from_source(module: str, path: Path) -> Iterator[Record]:
    """Yield the docstrings of one source file."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # a few files of some versions are templates, not Python
    seen: set[str] = set()
    for name, node in [(module, tree), *_definitions(module, tree)]:
        docstring = ast.get_docstring(node)  # type: ignore[arg-type]
        if docstring and name not in seen:
            seen.add(name)
            yield _record(name, docstring)


def _definitions(scope: str, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield public classes, functions and methods with their dotted names."""
    for child in getattr(node, "body", ()):
        if isinstance(child, Definition) and not child.name.startswith("_"):
            name = f"{scope}.{child.name}"
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(name, child)


def _from_compiled(module: str) -> Iterator[Record]:
    """Yield the docstrings of a module that is written in C, such as math or zlib."""
    try:
        loaded = import_module(module)
    except ImportError:
        return  # not built on this machine, or a folder met already
    if (getattr(loaded, "__file__", None) or "").endswith(".py"):
        return
    docstring = inspect.getdoc(loaded)
    if docstring:
        yield _record(module, docstring)
    yield from _members(module, loaded)


def _members(scope: str, owner: Any) -> Iterator[Record]:
    """Yield the public functions, classes and methods of a compiled module or class."""
    for name, value in sorted(vars(owner).items()):
        if name.startswith("_") or not (inspect.isroutine(value) or inspect.isclass(value)):
            continue
        docstring = inspect.getdoc(value)
        if docstring:
            yield _record(f"{scope}.{name}", docstring)
        if inspect.isclass(value) and not inspect.isclass(owner):
            yield from _members(f"{scope}.{name}", value)


def _record(name: str, docstring: str) -> Record:
    """Put the name before the docstring, in words, because it often says most."""
    return Record(name, f"{name.replace('.', ' ').replace('_', ' ')}: {docstring}")
