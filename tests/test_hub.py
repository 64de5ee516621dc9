"""Checkpoints of the hub, without one: a stand-in for `snapshot_download`, and the hub's own cache offline."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from assay import checkpoints, hub, plan
from assay.errors import UsageError
from assay.schema import Status
from tests.conftest import Assay, report_in

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A repository as the hub's cache holds it: links into a folder of blobs."""
    repository = tmp_path / "hub" / "models--someone--small-bert"
    folder = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    folder.mkdir(parents=True)
    for file in checkpoints.local("bert").path.glob("*"):
        if file.name != "assay.json":
            shutil.copyfile(file, repository / "blobs" / file.name)
            (folder / file.name).symlink_to(Path("../../blobs") / file.name)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return folder


def test_a_checkpoint_is_recorded_by_its_commit(monkeypatch: pytest.MonkeyPatch, snapshot: Path) -> None:
    asked: list[dict[str, Any]] = []

    def download(repository: str, **arguments: Any) -> str:
        asked.append({"repository": repository, **arguments})
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    made = plan.make_plan(backend="cpu", found=["someone/small-bert@v1"])
    assert [(each["repository"], each["revision"]) for each in asked] == [("someone/small-bert", "v1")]
    assert made.families == ("bert",) and made.size_of("bert") == "own"
    opened = made.models["bert"]
    assert opened.ref().model_dump() == {
        "sha256": checkpoints.local("bert").sha256, "source": "hub", "name": "someone/small-bert", "revision": COMMIT,
    }  # fmt: skip
    assert checkpoints.twin(opened).revision == COMMIT
    plan.make_plan(backend="cpu", models={"bert": "someone/small-bert"})
    assert asked[-1]["revision"] is None


def test_only_safetensors_and_descriptions_are_fetched() -> None:
    def fetched(name: str) -> bool:
        return any(fnmatch.fnmatch(name, pattern) for pattern in hub.FILES)

    for wanted in ("config.json", "model.safetensors", "model-00001-of-00002.safetensors", "1_Pooling/config.json",
                   "model.safetensors.index.json", "tokenizer.json", "vocab.txt", "spiece.model"):  # fmt: skip
        assert fetched(wanted), wanted
    for unwanted in ("pytorch_model.bin", "modeling_own.py", "consolidated.safetensors", "onnx/model.onnx",
                     "model.fp16.safetensors", "tf_model.h5", "unet/model.safetensors"):  # fmt: skip
        assert not fetched(unwanted), unwanted


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder\nand traffic is disabled"),
        OSError("no space left on device"),
        ValueError("not a valid repository"),
    ],
)
def test_what_the_hub_cannot_give_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fails(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(UsageError) as caught:
        checkpoints.find("someone/absent")
    assert str(caught.value).startswith("someone/absent: no such folder, and not to be had from the hub: ")
    assert "\n" not in str(caught.value)
    assert issubclass(RepositoryNotFoundError, OSError)  # caught like these, and needs an answer of a server to be made


@pytest.mark.parametrize("text", ["nowhere", "./some/where", "/some/where", "a/b/c", "a/b@", "../up"])
def test_what_is_no_id_is_never_looked_for_on_the_hub(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(hub, "snapshot", lambda _: pytest.fail("asked the hub"))
    with pytest.raises(UsageError, match="no such folder"):
        checkpoints.find(text)


def test_a_folder_comes_before_an_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "small-bert").mkdir(parents=True)
    monkeypatch.setattr(hub, "snapshot", lambda _: pytest.fail("asked the hub"))
    assert checkpoints.find("someone/small-bert").revision is None


def test_offline_the_hub_s_own_cache_answers(assay: Assay, snapshot: Path, tmp_path: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = assay("run", "--backend", "cpu", "someone/small-bert", "--reports", tmp_path / "reports", env=offline)
    assert done.returncode == 0, done.stderr
    (cell,) = report_in(tmp_path / "reports" / "sessions").cells
    assert (cell.status, cell.family) == (Status.REAL, "bert"), cell.reason
    assert cell.checkpoint is not None
    assert (cell.checkpoint.source, cell.checkpoint.revision) == ("hub", COMMIT)
    for absent in ("someone/else", "someone/small-bert@v2"):
        done = assay("run", "--backend", "cpu", absent, env=offline)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"assay: error: {absent}: no such folder, and not to be had from the hub: ")
