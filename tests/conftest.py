"""Shared by the tests: one checkpoint and export cache for a run, and real `assay` processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from assay.session_report import SessionReport
from tests.trial.impostors import installed

# The same cases every time, and no time limit: a busy machine is no bug.
settings.register_profile("assay", deadline=None, derandomize=True)
settings.load_profile("assay")

Assay = Callable[..., subprocess.CompletedProcess[str]]


def pytest_runtest_teardown() -> None:
    """A session of ONNX Runtime leaves a thread that takes subnormal numbers for zero; other tests need them."""
    if "onnxruntime" in sys.modules:
        import torch

        torch.set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the whole run, all of its workers included: models and exports are made once."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder = Path(os.environ.get("ASSAY_TEST_CACHE") or shared / "cache")
    before = os.environ.get("ASSAY_CACHE")
    os.environ["ASSAY_CACHE"] = str(folder)
    yield folder
    os.environ.pop("ASSAY_CACHE")
    if before is not None:
        os.environ["ASSAY_CACHE"] = before


@pytest.fixture(scope="session")
def impostor_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `PYTHONPATH` on which the impostors are installed, as a distribution with entry points."""
    return installed(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def assay(impostor_path: str) -> Assay:
    """Run `python -m assay ARGUMENTS` as a user would, with the impostors installed."""

    def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "assay", *map(str, arguments)],
            capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": impostor_path} | dict(env or {}),
        )  # fmt: skip

    return run


def report_in(folder: Path) -> SessionReport:
    """The one session report of a folder."""
    (path,) = folder.glob("*.json")
    return SessionReport.model_validate_json(path.read_text(encoding="utf-8"))


def raw_report_in(folder: Path) -> dict[str, Any]:
    """The same, as plain data."""
    (path,) = folder.glob("*.json")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
