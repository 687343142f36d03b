"""Guards: public names, import layers, what an import costs, and the README."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minisplade

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "minisplade"
DOCS = sorted((ROOT / "docs").glob("*.md"))

# Modules import only from lines above their own; files inside one folder may import each other.
LAYERS = [
    ["errors", "arrays", "terminal"],
    ["figures"],
    ["runtime", "files", "disk", "analysis"],
    ["pages", "pickles"],
    ["functional", "pooling", "vectors", "checkpoint", "hub", "records", "pieces"],
    ["kernels", "tokenization", "vocabularies"],
    ["similarity", "layout"],
    ["models", "index"],
    ["routes", "explain"],
    ["saving", "trace"],
    ["encoder", "reranker", "warmup", "bm25", "words", "fusion"],
    ["hybrid", "passages", "inspection", "conversion"],
    ["evaluation"],
    ["demo"],
    ["display"],
    ["arguments", "commands"],
    ["index_commands", "model_commands"],
    ["cli"],
    ["__init__", "__main__"],
]


def test_public_names() -> None:
    assert minisplade.__all__ == sorted(minisplade.__all__)
    assert minisplade.__all__ == [
        "BM25",
        "CheckpointError",
        "CrossEncoder",
        "Document",
        "Explanation",
        "Hit",
        "Hits",
        "HybridEncoder",
        "HybridSearch",
        "Index",
        "IndexFormatError",
        "IndexLockedError",
        "IndexWriteError",
        "InputError",
        "MatchExplanation",
        "MiniSpladeError",
        "ModelNotFoundError",
        "PassageIndex",
        "SparseEncoder",
        "SparseVector",
        "SparseVectors",
        "Trace",
        "WholeWords",
        "WindowedEncoder",
        "concatenate",
        "fuse",
        "rerank",
    ]
    for name in minisplade.__all__:
        assert getattr(minisplade, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'sparse_encoder'"):
        minisplade.sparse_encoder  # noqa: B018


def imported_modules(path: Path) -> set[str]:
    """Return the minisplade modules that a file imports, by their top name, typing aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    return {n.split(".")[1] for n in names if n.startswith("minisplade.")}


def test_imports_go_one_way() -> None:
    level = {name: i for i, names in enumerate(LAYERS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for imported in imported_modules(path) - {room}:
            assert level[imported] < level[room], f"{path.name} imports {imported}"


def test_only_kernels_import_numba() -> None:
    for path in PACKAGE.rglob("*.py"):
        if "kernels" not in path.relative_to(PACKAGE).parts[0]:
            assert not re.search(r"^\s*(from|import) numba", path.read_text(), re.M), path


def test_import_is_light() -> None:
    code = (
        "import sys, minisplade; from minisplade import SparseEncoder\n"
        "print([m for m in ('numba', 'huggingface_hub', 'tqdm', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_version_is_in_the_changelog() -> None:
    assert f"## {minisplade.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


PAGES = ["README.md", *(f"docs/{name}.md" for name in ("durability", "quality", "search"))]


@pytest.mark.parametrize("page", PAGES)
def test_python_in_pages_prints_what_they_say(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```\n+(?:[^`]*?```text\n(.*?)```)?", text, re.S)
    assert blocks
    for code, output in blocks:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        assert run.stdout == output


def test_every_page_with_python_is_run() -> None:
    pages = {"README.md", *(f"docs/{path.name}" for path in DOCS)}
    with_python = {page for page in pages if "```python" in (ROOT / page).read_text("utf-8")}
    assert with_python == {*PAGES, "docs/tour.md"}  # the tour has tests of its own


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in DOCS)])
def test_pages_name_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:minisplade|scripts|tests)/[\w/.]+)`", text)
    assert named or page != "README.md"
    for name in named:
        assert (ROOT / name).exists(), name
    for name, heading in re.findall(r"\]\(([\w/.]+)(?:#([\w-]+))?\)", text):
        target = (ROOT / page).parent / name
        assert target.exists(), name
        headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M) if heading else []
        assert not heading or heading in [one.lower().replace(" ", "-") for one in headings]
