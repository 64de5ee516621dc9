"""What the processes of the roles may hold and do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Assay

from assay import backends
from assay.roles.process import Answer, Request, Servers

GUARD = Path(__file__).parent / "no_network"
linux = pytest.mark.skipif(sys.platform != "linux", reason="seccomp and /proc are Linux's")


def run_roles(backend_name: str, folder: Path) -> Answer:
    """Build and run BERT on a backend, through real servers."""
    backend = backends.load(backend_name)
    request: dict[str, Any] = {"family": "bert", "size": "tiny", "backend": backend_name, "precision": "f32"}
    with Servers(limit=300) as servers:
        build = Request(
            "builder", ("torch", "transformers"), request | {"model": None, "look": False}, folder / "build", alone=True
        )
        built = servers.call(build).finish().response["checkpoint"]
        run = {
            "backend": backend_name, "artifact": built["artifact"], "device": asdict(backend.devices()[0]),
            "precision": "f32", "config": str(Path(built["path"]) / "config.json"), "seed": "0" * 32, "measure": True,
        }  # fmt: skip
        return servers.call(Request("runner", backend.preload, run, folder / "run", alone=True)).finish()


def runtimes(answer: Answer) -> set[str]:
    """Which runtimes' packages the runner had imported."""
    return {"torch", "openvino", "onnxruntime", "tensorflow", "jax"}.intersection(
        answer.response["software"]["modules"]
    )


@linux
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_the_runner_of_another_runtime_has_no_torch(name: str, tmp_path: Path) -> None:
    answer = run_roles(name, tmp_path)
    assert runtimes(answer) == {name}
    libraries = answer.response["libraries"]
    assert any(library.startswith(backends.load(name).libraries) for library in libraries)
    assert not [library for library in libraries if "torch" in library or "c10" in library]


@linux
def test_a_torch_runner_is_seen_to_hold_torch(tmp_path: Path) -> None:
    answer = run_roles("cpu", tmp_path)
    assert runtimes(answer) == {"torch"}
    assert any(library.startswith("libtorch") for library in answer.response["libraries"])


@linux
def test_the_guard_kills_a_process_that_opens_a_socket() -> None:
    command = "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)"
    done = subprocess.run([sys.executable, "-c", command], env={"PYTHONPATH": str(GUARD)})
    assert done.returncode == -31  # SIGSYS


@linux
@pytest.mark.parametrize(("name", "code"), [("openvino", 0), ("onnxruntime", 0), ("cpu", 0), ("telephoning", 1)])
def test_no_role_opens_a_socket(assay: Assay, impostor_path: str, tmp_path: Path, name: str, code: int) -> None:
    path = f"{GUARD}:{impostor_path}"
    done = assay("run", "--backend", name, "--family", "bert", "--reports", tmp_path, env={"PYTHONPATH": path})
    assert done.returncode == code, done.stdout + done.stderr
