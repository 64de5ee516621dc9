"""One isolated environment per backend, one harness in each, one matrix of all.

    nox                                    every backend, then the matrix
    nox -s cuda                            one backend, merged with what is already there
    nox -s openvino -- --family bert       arguments for `assay run`
    nox -s tests                           the tests, in an environment with all CPU runtimes
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

ROOT = Path(__file__).parent
ENVS = ROOT / "envs"
ORDER = ["cpu", "cuda", "openvino", "onnxruntime"]
BACKENDS = sorted((file.stem for file in ENVS.glob("*.txt")), key=lambda name: (*ORDER, name).index(name))
"""The backends are the files of `envs/`."""

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PACKAGES = re.compile(r"^(nvidia-(?!ml-py)|cuda-|triton)")
"""What the CUDA build of torch brings with it, by name."""


def _backend(name: str, title: str) -> None:
    def run(session: nox.Session) -> None:
        session.notify("matrix", posargs=[])  # first, so that the matrix is merged also when this session fails
        session.install("-e", ".")
        available = _device_is_there(session, name)
        if available:
            _install(session, f"envs/{name}.txt", cpu=name != "cuda")
        session.run("assay", "run", "--backend", name, *session.posargs)

    run.__doc__ = f"Run the harness on {title}; arguments after -- go to `assay run`."
    nox.session(name=name, tags=["backend"])(run)


TITLES = {
    "cpu": "CPU torch", "cuda": "CUDA torch", "openvino": "OpenVINO (ONNX export)",
    "onnxruntime": "ONNX Runtime (ONNX export)",
}  # fmt: skip
for _name in BACKENDS:
    _backend(_name, TITLES.get(_name, _name))


@nox.session
def matrix(session: nox.Session) -> None:
    """Merge all session reports into one matrix: reports/matrix.json and reports/STATUS.md."""
    session.install("-e", ".")
    session.run("assay", "merge", "reports/sessions", "--output", "reports")


@nox.session(default=False)
def tests(session: nox.Session) -> None:
    """Run the tests in an environment that holds all CPU runtimes; arguments go to pytest."""
    session.install("-e", ".")
    _install(session, "envs/openvino.txt", "envs/onnxruntime.txt", cpu=True)
    session.install(*nox.project.dependency_groups(_project(), "test"))
    session.install("--no-deps", *nox.project.dependency_groups(_project(), "test-data"))
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style and types: ruff, mypy (strict)."""
    session.install("-e", ".", *nox.project.dependency_groups(_project(), "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Pin envs/*.txt anew from the extras in pyproject.toml."""
    session.install(*nox.project.dependency_groups(_project(), "lock"))
    with tempfile.TemporaryDirectory() as folder:
        everything = Path(folder) / "all.txt"
        _compile(session, *[word for name in BACKENDS for word in ("--extra", name)], "-o", str(everything))
        excluded = Path(folder) / "excluded.txt"
        names = [line.partition("==")[0] for line in everything.read_text().splitlines() if CUDA_PACKAGES.match(line)]
        excluded.write_text("\n".join(names) + "\n")
        for name in BACKENDS:
            target = ENVS / f"{name}.txt"
            target.write_text("")  # old pins would be preferred
            without = () if name == "cuda" else ("--excludes", str(excluded))
            _compile(session, "--extra", name, "-c", str(everything), *without, "-o", str(target))


def _compile(session: nox.Session, *arguments: str) -> None:
    session.run(
        "uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--no-annotate",
        "--no-emit-index-url", "--custom-compile-command", "nox -s lock", "--quiet", *arguments,
        silent=True,
    )  # fmt: skip


def _project() -> dict[str, object]:
    return nox.project.load_toml(ROOT / "pyproject.toml")


def _device_is_there(session: nox.Session, name: str) -> bool:
    """Ask assay, which needs nothing heavy for it; without a device the heavy part is not installed."""
    found = session.run("assay", "doctor", "--json", silent=True)
    diagnoses = {diagnosis["backend"]: diagnosis for diagnosis in json.loads(str(found))}
    available: bool = diagnoses[name]["available"]
    if not available:
        session.log(f"{diagnoses[name]['reason']}: {name}.txt is not installed")
    return available


def _install(session: nox.Session, *files: str, cpu: bool) -> None:
    """Install pinned files; for a CPU column with torch's CPU build wherever it can be had.

    Where only PyPI can be reached, torch is its CUDA build on Linux, and `envs/cuda.txt` pins what that needs.
    """
    env = _uv_settings()
    if cpu and sys.platform == "linux" and not _has_torch(session) and _reachable(f"{TORCH_CPU_INDEX}/torch/"):
        (torch,) = [line for line in (ROOT / files[0]).read_text().splitlines() if line.startswith("torch==")]
        session.install("--no-deps", "--index-url", TORCH_CPU_INDEX, torch, env=env)
    session.install(*[word for file in files for word in ("-r", file)], "-c", "envs/cuda.txt", env=env)


def _has_torch(session: nox.Session) -> bool:
    return any(Path(session.virtualenv.location).glob("lib/python*/site-packages/torch-*.dist-info"))


@functools.cache
def _reachable(url: str) -> bool:
    """Whether an index answers within three seconds; asked once a run."""
    try:
        with urllib.request.urlopen(url, timeout=3):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _uv_settings() -> dict[str, str]:
    """uv reads none of pip's settings: the user's own wheels and indexes are handed on."""
    names = {"PIP_FIND_LINKS": "UV_FIND_LINKS", "PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX"}
    return {theirs: os.environ[ours] for ours, theirs in names.items() if ours in os.environ}
