"""What does not fit is refused before it starts; what fits, and what nobody knows, is not."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from assay import backends, cache, checkpoints, cli, needs, tensor_files
from assay.checkpoints import Checkpoint
from assay.errors import UsageError
from assay.evidence.case import KEPT
from assay.plan import Plan
from assay.schema import Precision

COUNT = 2_000_000
WEIGHTS = 4 * COUNT


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache on a machine that has everything."""
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    have(monkeypatch)
    return tmp_path / "cache"


def have(monkeypatch: pytest.MonkeyPatch, *, memory: int = 2**50, disk: int = 2**50) -> None:
    monkeypatch.setattr("assay.machine.free_memory", lambda: memory)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=disk))


def checkpoint(path: Path, shapes: Mapping[str, list[int]] | None = None, dtype: str = "F32") -> Path:
    """A folder whose weights are zeros, which a file system need not store."""
    header: dict[str, object] = {}
    width, end = int(dtype[-2:]) // 8, 0
    for name, shape in (shapes or {"a": [1000, 1500], "b": [500_000]}).items():
        size = width
        for axis in shape:
            size *= axis
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.mkdir(parents=True)
    with (path / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    (path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    return path


def plan(backend: str, models: Mapping[str, Path] | None = None, size: str = "tiny") -> Plan:
    own = {
        family: Checkpoint(family, path, "0" * 64, "path", path.name, "own") for family, path in (models or {}).items()
    }
    return Plan(backends.load(backend), ("bert", "llama"), own, size, (Precision.F32,), 600.0)


def refusal(asked: Plan, *families: str) -> str:
    with pytest.raises(UsageError) as caught:
        needs.check(asked, families or asked.families)
    message = str(caught.value)
    assert "\n" not in message
    return message


# How many parameters


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F64"])
def test_a_folder_s_parameters_are_counted_in_its_headers(tmp_path: Path, dtype: str) -> None:
    assert tensor_files.parameters(checkpoint(tmp_path / "mine", dtype=dtype)) == COUNT
    assert tensor_files.parameters(checkpoint(tmp_path / "scalar", {"a": [], "b": [3]}, dtype)) == 4


def test_shards_are_counted_together(tmp_path: Path) -> None:
    whole = checkpoint(tmp_path / "mine")
    (whole / "model.safetensors").rename(whole / "model-1.safetensors")
    (checkpoint(tmp_path / "other", {"c": [7]}) / "model.safetensors").rename(whole / "model-2.safetensors")
    index = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    (whole / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert tensor_files.parameters(whole) == COUNT + 7


def test_models_of_size_tiny_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "check_output", lambda *_, **__: pytest.fail("a process was started"))
    have(monkeypatch, memory=0, disk=0)
    needs.check(plan("openvino"), ("bert", "llama"))


def test_local_models_are_counted_without_their_weights() -> None:
    made = checkpoints.local("t5")  # its embeddings are tied: counted once
    assert needs._counted("tiny", ["t5"], 300) == {"t5": tensor_files.parameters(made.path)}


def test_where_torch_is_missing_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert needs.parameters(plan("openvino", size="base"), ("bert", "llama")) == {}


def test_a_published_size_is_counted_and_a_folder_is_not_counted_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def count(size: str, chosen: list[str], timeout: float) -> dict[str, int]:
        asked.append((size, chosen))
        return dict.fromkeys(chosen, 7)

    monkeypatch.setattr(needs, "_counted", count)
    mine = plan("cpu", {"bert": checkpoint(tmp_path / "mine")}, size="base")
    assert needs.parameters(mine, mine.families) == {"bert": COUNT, "llama": 7}
    assert asked == [("base", ["llama"])]


# Memory


@pytest.mark.parametrize("backend", ["cpu", "openvino", "onnxruntime"])
def test_memory_is_compared_to_the_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str) -> None:
    mine = plan(backend, {"bert": checkpoint(tmp_path / "mine")})
    need = needs.START + needs.JUDGE * COUNT
    have(monkeypatch, memory=need)
    needs.check(mine, mine.families)
    have(monkeypatch, memory=need - 1)
    assert refusal(mine).startswith(f"bert on {backend}: the judge needs at least 481 MiB of memory (2.00 million ")


def test_the_numbers_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models = {"bert": checkpoint(tmp_path / "mine"), "llama": checkpoint(tmp_path / "large", {"a": [1_100_000_000]})}
    have(monkeypatch, memory=3 * 2**30)
    assert refusal(plan("openvino", models)) == (
        "llama on openvino: the builder needs at least 12.7 GiB of memory (1,100 million parameters), "
        "3.00 GiB are free; free some, or name the other families with --family"
    )
    needs.check(plan("openvino", models), ["bert"])  # what a report has already needs nothing


def test_a_large_model_stays_narrow_in_the_judge(tmp_path: Path) -> None:
    mine = plan("cpu", {"bert": checkpoint(tmp_path / "mine")})
    below, above = (needs.memory(mine, "bert", count).memory - needs.START for count in (KEPT, KEPT + 1))
    assert (below, above) == (16 * KEPT, 8 * (KEPT + 1))


def test_the_worst_role_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = plan("cpu", {"bert": checkpoint(tmp_path / "mine")})
    monkeypatch.setattr(type(mine.backend), "runner_memory", 100)
    assert needs.memory(mine, "bert", COUNT) == needs.Need("bert", "runner", COUNT, needs.START + 100 * COUNT)
    monkeypatch.setattr(type(mine.backend), "builder_memory", 200)
    assert needs.memory(mine, "bert", COUNT).role == "builder"


# Disk


@pytest.mark.parametrize(
    ("backend", "size", "copies"),
    [("cpu", "own", 1), ("cpu", "base", 2), ("openvino", "own", 3), ("onnxruntime", "own", 3), ("openvino", "base", 4)],
)
def test_a_cell_adds_its_copies_to_the_cache(tmp_path: Path, backend: str, size: str, copies: int) -> None:
    models = {"bert": checkpoint(tmp_path / "mine")} if size == "own" else {}
    assert needs.disk(plan(backend, models), "bert", COUNT) == copies * WEIGHTS


def test_what_the_cache_holds_is_not_needed_again(tmp_path: Path) -> None:
    mine = plan("openvino", {"bert": checkpoint(tmp_path / "mine")})

    def keep(kind: cache.Kind, family: str, number: int, size: int) -> int:
        def build(draft: Path) -> None:
            (draft / cache.MARKERS[kind]).write_text("{}")
            (draft / "weights").write_bytes(bytes(size))

        cache.entry(kind, f"{family}-{number:016x}", build, lambda _: True)
        return needs.disk(mine, "bert", COUNT) // WEIGHTS

    assert keep("exports", "llama", 1, WEIGHTS) == 3  # another family's
    assert keep("exports", "bert", 1, WEIGHTS // 2) == 3  # another model's
    assert keep("exports", "bert", 2, WEIGHTS) == 2
    assert keep("twins", "bert", 1, WEIGHTS) == 1
    assert keep("twins", "bert", 2, WEIGHTS) == 1  # a second twin saves no export
    assert keep("exports", "bert", 3, WEIGHTS) == 0


def test_disk_is_compared_to_the_byte(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    mine = plan("openvino", {"bert": checkpoint(tmp_path / "mine")})
    # Twin and two exports, for a while the perturbed checkpoint and its own; the temporary folder is on that disk too.
    need = 3 * WEIGHTS + 2 * WEIGHTS + needs.OUTPUTS
    have(monkeypatch, disk=need)
    needs.check(mine, mine.families)
    have(monkeypatch, disk=need - 1)
    assert refusal(mine) == (
        f"bert on openvino: needs at least 294 MiB in {folder.parent}, most for bert (2.00 million parameters), "
        "294 MiB are free; make room, or set $ASSAY_CACHE to a larger disk"
    )


# Before anything runs


def test_a_run_that_does_not_fit_is_a_mistake_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    have(monkeypatch, memory=2**20)
    monkeypatch.setattr("assay.session.Servers", lambda *_: pytest.fail("something was started"))
    model = f"bert={checkpoint(tmp_path / 'mine')}"
    assert cli.main(["run", "--backend", "cpu", "--model", model, "--reports", str(tmp_path / "reports")]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("assay: error: bert on cpu: the judge needs at least 481 MiB of memory")
    assert not list((tmp_path / "reports").rglob("*.json"))


def test_where_the_device_is_absent_nothing_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    have(monkeypatch, memory=0, disk=0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    model = f"bert={checkpoint(tmp_path / 'mine')}"
    assert cli.main(["run", "--backend", "cuda", "--model", model, "--reports", str(tmp_path / "reports")]) == 0
