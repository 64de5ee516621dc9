"""The noxfile is asked as a user would: by running nox."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from assay import backends
from tests import strategies as make

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "envs").glob("*.txt"))
NAMES = [path.stem for path in FILES]
INT8 = ROOT / "envs" / "extras" / "int8.txt"
LOCKS = [*FILES, INT8]
PIN = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)==([^\s;+]+)(?: ; .+)?")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CUDA_ONLY = ("cuda-", "nvidia-", "triton")


def nox(*arguments: str) -> str:
    command = [sys.executable, "-m", "nox", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@functools.cache
def sessions(*arguments: str) -> dict[str, dict[str, object]]:
    """What nox would run, by session name."""
    return {session["name"]: session for session in json.loads(nox("--json", "-l", *arguments))}


def pins(path: Path) -> dict[str, str]:
    """Version by package."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    matches = [PIN.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    found = dict(match.groups() for match in matches if match)
    assert len(found) == len(lines), "a package stands there twice"
    return found


def test_backends_environments_and_sessions_agree() -> None:
    environments = {backends.load(name).environment for name in backends.ORDER}
    assert environments == set(NAMES)
    assert environments == set(sessions("-t", "backend"))
    assert environments == set(backends.ORDER) - set(backends.ON_DEMAND)


def test_default_sessions_are_the_backends_and_then_the_matrix() -> None:
    assert list(sessions()) == [*NAMES, "matrix"]


@pytest.mark.parametrize("name", backends.ON_DEMAND)
def test_a_column_on_demand_has_a_session_and_no_job(name: str) -> None:
    assert list(sessions("-s", name)) == [name]
    assert name not in sessions() and name not in sessions("-t", "backend")
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    assert f'"{name}": "{backends.load(name).environment}"' in noxfile


def test_the_other_sessions_are_there_when_asked_for() -> None:
    others = {"tests", "lint", "lock", "trial", "bench"}
    assert set(sessions("-s", *others)) == others


def elsewhere(folder: Path, *session: str, **environ: str) -> int:
    """Run a session in a folder of its own, with what is installed here; its exit code."""
    for name in ("noxfile.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "envs", folder / "envs")
    command = [sys.executable, "-m", "nox", "--no-venv", "--no-install", "-s", *session]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path, **environ}, capture_output=True
    ).returncode


def report_there(folder: Path) -> Path:
    """The folder of session reports, with one in it."""
    sessions = folder / "reports" / "sessions"
    sessions.mkdir(parents=True)
    (sessions / "new.json").write_text(make.report(make.cell()).model_dump_json(), encoding="utf-8")
    return sessions


def test_environments_keep_what_they_compile(tmp_path: Path) -> None:
    compiled = tmp_path / "compiled"
    report_there(tmp_path)
    environ = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(compiled)}
    assert elsewhere(tmp_path, "matrix", **environ) == 0
    assert list(compiled.rglob("assay/cli.*.pyc"))


@pytest.mark.parametrize("option", [("--reports", "mine"), ("--reports=mine",)])
def test_the_matrix_is_where_the_reports_are(tmp_path: Path, option: tuple[str, ...]) -> None:
    report_there(tmp_path).parent.rename(tmp_path / "mine")
    assert elsewhere(tmp_path, "matrix", "--", *option) == 0
    assert (tmp_path / "mine" / "index.html").is_file() and not (tmp_path / "reports").exists()


def test_a_column_hands_that_folder_to_the_matrix(tmp_path: Path) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": ""}  # no device answers, whatever machine this is
    assert elsewhere(tmp_path, "cuda", "--", "--family", "bert", "--reports", "mine", **environ) == 0
    status = (tmp_path / "mine" / "STATUS.md").read_text(encoding="utf-8")
    assert "UNAVAILABLE" in status and not (tmp_path / "reports").exists()


@pytest.mark.parametrize("unreadable", [False, True])
def test_a_comparison_is_in_the_page_too(tmp_path: Path, unreadable: bool) -> None:
    """Whether a report can be read or not."""
    folder = report_there(tmp_path)
    if unreadable:
        (folder / "broken.json").write_text("{", encoding="utf-8")
    base = tmp_path / "baseline" / "matrix.json"
    base.parent.mkdir()
    base.write_text(make.matrix(make.report(make.failed())).model_dump_json(), encoding="utf-8")
    assert elsewhere(tmp_path, "compare", "--", "baseline/matrix.json") == 0
    assert "1 improvement" in (tmp_path / "reports" / "COMPARISON.md").read_text(encoding="utf-8")
    page = (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")
    assert "Against <b>matrix.json</b>" in page and "1 improvement" in page


def test_every_session_is_explained_in_a_line() -> None:
    lines = [line for line in nox("-l").splitlines() if line.startswith(("* ", "- "))]
    assert len(lines) == len(NAMES) + len(backends.ON_DEMAND) + 7
    for line in lines:
        assert re.fullmatch(r"[*-] [a-z-]+ (\[backend\] )?-> [A-Z].{20,}", line), line


def test_the_interpreter_that_runs_nox_is_the_sessions_own() -> None:
    assert all(session["python"] is None for session in sessions().values())


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_locks_are_exact_and_name_no_place(path: Path) -> None:
    assert pins(path)
    text = path.read_text(encoding="utf-8")
    assert "nox -s lock" in text.splitlines()[1]
    for forbidden in ("://", "--index", "--extra-index", "--find-links", "/tmp", " @ "):  # noqa: S108
        assert forbidden not in text


def test_packages_have_one_version_in_all_files() -> None:
    versions: dict[str, set[str]] = {}
    for path in LOCKS:
        for name, version in pins(path).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_locks_hold_what_pyproject_asks_for(path: Path) -> None:
    locked = pins(path)
    direct = dict(pin.split("==") for pin in PYPROJECT["project"]["optional-dependencies"][path.stem])
    assert {"torch", "transformers", "pillow"} <= set(direct)
    assert direct.items() <= locked.items()
    assert {re.split(r"[<>=]", need)[0] for need in PYPROJECT["project"]["dependencies"]} <= set(locked)


def test_what_makes_weights_int8_is_pinned_with_all_that_it_needs() -> None:
    locked = pins(INT8)
    (nncf,) = PYPROJECT["project"]["optional-dependencies"]["int8"]
    assert nncf == f"nncf=={locked['nncf']}"
    needed = {"nncf"}
    for name in needed_by("nncf"):
        needed |= {name, *needed_by(name)}
    assert {"scikit-learn", "joblib"} <= needed <= set(locked)


def needed_by(name: str) -> set[str]:
    """What the installed package requires here."""
    requirements = map(Requirement, metadata.requires(name) or ())
    wanted = [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return {canonicalize_name(each.name) for each in wanted}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_only_cuda_holds_what_the_cuda_build_of_torch_needs(path: Path) -> None:
    found = {name for name in pins(path) if name.startswith(CUDA_ONLY)} - {"nvidia-ml-py"}
    assert bool(found) == (path.stem == "cuda"), found


def test_tools_are_pinned_exactly() -> None:
    for name, requirements in PYPROJECT["dependency-groups"].items():
        assert all("==" in requirement for requirement in requirements), name
