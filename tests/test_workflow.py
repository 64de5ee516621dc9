"""The CI workflow against the sessions that nox lists: what it runs is there, and nothing in it was written twice."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay import arguments
from tests.test_noxfile import ROOT, sessions

PATH = ROOT / ".github" / "workflows" / "matrix.yml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
LISTED = "${{ fromJSON(needs.backends.outputs.sessions) }}"
NAME = "${{ matrix.session.name }}"
ALWAYS = {"${{ always() }}", "${{ !cancelled() }}"}
REPORTS = "reports/sessions/"
PERMISSIONS = {"matrix": {"contents": "read", "actions": "read"}, "comment": {"pull-requests": "write"}}
"""Beyond reading the repository: the baseline's artifact, and the comment, whose job runs nothing of the repository."""
TOKEN = "${{ github.token }}"  # noqa: S105 (where a token is, not one)
PUBLISHED = [
    "reports/STATUS.md",
    "reports/COMPARISON.md",
    "reports/junit.xml",
    "reports/matrix.json",
    "reports/index.html",
]


def faults(workflow: dict[Any, Any]) -> Iterator[str]:
    """What is wrong with a workflow."""
    jobs = workflow["jobs"]
    first, column, last = jobs["backends"], jobs["backend"], jobs["matrix"]
    granted = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    if workflow.get("permissions") != {"contents": "read"} or granted != PERMISSIONS:
        yield "permissions"
    for name, job in jobs.items():
        if "timeout-minutes" not in job:
            yield f"{name}: no time limit"
        yield from (f"{name}: {fault}" for step in job["steps"] for fault in step_faults(step))
    yield from matrix_faults(first, column, last)
    yield from artifact_faults(column, last)
    yield from comparison_faults(last, jobs["comment"])


def matrix_faults(first: dict[str, Any], column: dict[str, Any], last: dict[str, Any]) -> Iterator[str]:
    """Every backend that nox lists has a job, whatever becomes of the others, and the matrix follows them all."""
    if column["strategy"]["fail-fast"] is not False:
        yield "one backend's failure ends the others"
    if first["outputs"] != {"sessions": "${{ steps.list.outputs.sessions }}"} or column["needs"] != "backends":
        yield "the list does not reach the backends"
    if column["strategy"]["matrix"] != {"session": LISTED}:
        yield "the backends are written by hand"
    if last["needs"] != "backend" or last["if"] not in ALWAYS:
        yield "the matrix does not wait for the backends, or not for failed ones"
    if last["steps"][-1] != {"run": "exit 1", "if": "${{ !cancelled() && needs.backend.result != 'success' }}"}:
        yield "a failed backend leaves the last job green"
    for label in re.findall(r"matrix\.session\.name == '(.*?)'", column["runs-on"]):
        if label not in sessions("-t", "backend"):
            yield f"no backend {label}"
    if not re.search(r"!github\.event\.pull_request\.head\.repo\.fork && vars\.GPU_RUNNER \|\| 'ub", column["runs-on"]):
        yield "forks get at the GPU runner, or the job waits for one that is not there"


def step_faults(step: dict[str, Any]) -> Iterator[str]:
    """A step calls sessions that there are, or actions of a stated major version."""
    if "uses" in step and not re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]):
        yield f"{step['uses']} is not pinned by its major version"
    if "${{" in step.get("run", ""):
        yield "an expression in a script"
    for name in re.findall(r"nox .*?-s (\S+)", step.get("run", "")):
        if name == '"$SESSION"':
            if step.get("env", {}).get("SESSION") != NAME:
                yield "runs another session than the one that is listed"
        elif name not in sessions("-s", "matrix", "compare", "tests", "lint", "lock"):
            yield f"no session {name}"
    if step.get("uses", "").startswith("actions/checkout@") and step["with"]["persist-credentials"] is not False:
        yield "leaves its token in the checkout"


def artifact_faults(column: dict[str, Any], last: dict[str, Any]) -> Iterator[str]:
    """What the backends upload is what the last job merges, and each has a name of its own."""
    (up,), (down,) = steps(column, "actions/upload-artifact"), steps(last, "actions/download-artifact")
    (published,) = steps(last, "actions/upload-artifact")
    names = [up["with"]["name"].replace(NAME, name) for name in sessions("-t", "backend")]
    if len(set(names)) < len(names):
        yield "backends overwrite each other's artifacts"
    if not all(fnmatch(name, down["with"]["pattern"]) for name in names) or not down["with"]["merge-multiple"]:
        yield "artifacts are not found again"
    if fnmatch(published["with"]["name"], down["with"]["pattern"]):
        yield "the matrix would be merged into itself"
    if not up["with"]["path"] == down["with"]["path"] == REPORTS or Path(REPORTS).parent != arguments.REPORTS:
        yield "reports are looked for elsewhere"
    if up["if"] != "${{ always() }}" or published["if"] not in ALWAYS:
        yield "nothing is uploaded after a failure"
    if published["with"]["path"].split() != PUBLISHED:
        yield "the matrix is not published"
    summary, _ = [step for step in last["steps"] if "GITHUB_STEP_SUMMARY" in step.get("run", "")]
    if summary["run"] != 'cat reports/STATUS.md >> "$GITHUB_STEP_SUMMARY"' or summary["if"] not in ALWAYS:
        yield "the job summary is not the matrix"


def comparison_faults(last: dict[str, Any], comment: dict[str, Any]) -> Iterator[str]:
    """What changed is in the summary of every run, and on pull requests that may be written to."""
    order = [
        next((part for part in ("id: baseline", "nox -s compare -- baseline/matrix.json", "cat reports/COMPARISON.md")
              if part in f"id: {step.get('id')} {step.get('run', '')}"), None)
        for step in last["steps"]
    ]  # fmt: skip
    found = [index for index, part in enumerate(order) if part]
    if len(found) != 3 or found[0] > found[1] or found[1] > found[2]:
        yield "nothing is compared, or not in order"
        return
    baseline, compared, summary = (last["steps"][index] for index in found)
    conditions = [step["if"] for step in (baseline, compared, summary)]
    if conditions != [
        "${{ !cancelled() }}",
        "${{ !cancelled() && hashFiles('baseline/matrix.json') != '' }}",
        "${{ !cancelled() && hashFiles('reports/COMPARISON.md') != '' }}",
    ]:
        yield "the comparison fails without a baseline, or is missing after a failure"
    if baseline["env"] != {"BRANCH": "${{ github.event.repository.default_branch }}", "GH_TOKEN": TOKEN}:
        yield "the baseline is of another branch"
    if any("GH_TOKEN" in step.get("env", {}) for step in last["steps"] if step is not baseline):
        yield "a step that runs the repository's code has a token"
    if "!github.event.pull_request.head.repo.fork" not in comment["if"] or "'pull_request'" not in comment["if"]:
        yield "comments where it may not"
    if steps(comment, "actions/checkout") or any("nox" in step.get("run", "") for step in comment["steps"]):
        yield "the job that may write runs the repository's code"
    (down,) = steps(comment, "actions/download-artifact")
    (up,) = steps(last, "actions/upload-artifact")
    if down["with"] != {"name": up["with"]["name"], "path": "reports/"}:
        yield "the comment does not find the comparison"


def steps(job: dict[str, Any], action: str) -> list[dict[str, Any]]:
    return [step for step in job["steps"] if step.get("uses", "").startswith(f"{action}@")]


def test_the_workflow_has_no_fault() -> None:
    assert list(faults(WORKFLOW)) == []


def put(*path: Any, value: Any) -> Callable[[dict[Any, Any]], None]:
    """Change one value of a workflow; a step is named by its action, or the start of its script."""

    def change(workflow: dict[Any, Any]) -> None:
        place: Any = workflow
        for part in path[:-1]:
            if isinstance(place, list):
                (place,) = [step for step in place if (step.get("uses") or step["run"]).startswith(part)]
            else:
                place = place[part]
        place[path[-1]] = value

    return change


COLUMN, LAST, COMMENT = ("jobs", "backend"), ("jobs", "matrix"), ("jobs", "comment")
UP, DOWN = "actions/upload-artifact", "actions/download-artifact"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (put("permissions", value="write-all"), "permissions"),
        (put(*LAST, "permissions", value={"contents": "write"}), "permissions"),
        (put(*COLUMN, "strategy", "fail-fast", value=True), "one backend's failure ends the others"),
        (put(*COLUMN, "strategy", "matrix", value={"session": [{"name": "cpu"}]}), "the backends are written by hand"),
        (put(*COLUMN, "needs", value=[]), "the list does not reach the backends"),
        (put(*COLUMN, "steps", "nox -s", "run", value="nox -s cpuu"), "backend: no session cpuu"),
        (put(*COLUMN, "steps", "nox -s", "env", value={"SESSION": "cpu"}), "backend: runs another session"),
        (put(*COLUMN, "steps", "nox -s", "run", value="echo ${{ github.head_ref }}"), "backend: an expression in"),
        (put(*COLUMN, "runs-on", value="${{ matrix.session.name == 'gpu' && vars.GPU_RUNNER }}"), "no backend gpu"),
        (put(*COLUMN, "runs-on", value="${{ vars.GPU_RUNNER }}"), "forks get at the GPU runner"),
        (put(*COLUMN, "steps", "actions/checkout", "with", value={"persist-credentials": True}), "backend: leaves its"),
        (put(*COLUMN, "steps", UP, "with", "name", value="sessions-all"), "backends overwrite each other's artifacts"),
        (put(*COLUMN, "steps", UP, "with", "name", value=f"report-{NAME}"), "artifacts are not found again"),
        (put(*COLUMN, "steps", UP, "with", "path", value="reports/"), "reports are looked for elsewhere"),
        (put(*COLUMN, "steps", UP, "if", value="${{ success() }}"), "nothing is uploaded after a failure"),
        (put(*COLUMN, "steps", UP, "uses", value=f"{UP}@main"), f"backend: {UP}@main is not pinned by its major versi"),
        (put(*LAST, "steps", DOWN, "with", "merge-multiple", value=False), "artifacts are not found again"),
        (put(*LAST, "steps", UP, "with", "name", value="sessions-all"), "the matrix would be merged into itself"),
        (put(*LAST, "steps", UP, "with", "path", value="reports/"), "the matrix is not published"),
        (put(*LAST, "steps", "cat reports/STATUS.md", "if", value="${{ success() }}"), "the job summary is not the"),
        (put(*LAST, "steps", "nox -s matrix", "run", value="nox -s merge"), "matrix: no session merge"),
        (put(*LAST, "steps", "nox -s compare", "run", value="nox -s matrix"), "nothing is compared"),
        (put(*LAST, "steps", "nox -s compare", "if", value="${{ !cancelled() }}"), "the comparison fails without"),
        (put(*LAST, "steps", "run=", "env", "BRANCH", value="${{ github.head_ref }}"), "the baseline is of another"),
        (put(*LAST, "steps", "nox -s compare", "env", value={"GH_TOKEN": TOKEN}), "a step that runs the repository's"),
        (put(*LAST, "permissions", value={"pull-requests": "write"}), "permissions"),
        (put(*COMMENT, "permissions", "contents", value="write"), "permissions"),
        (put(*COMMENT, "if", value="${{ github.event_name == 'pull_request' }}"), "comments where it may not"),
        (put(*COMMENT, "steps", "gh pr", "run", value="nox -s compare"), "the job that may write runs"),
        (put(*COMMENT, "steps", DOWN, "with", "path", value="elsewhere/"), "the comment does not find"),
        (put(*LAST, "steps", "exit", "if", value="${{ needs.backend.result != 'success' }}"), "a failed backend"),
        (put(*LAST, "needs", value="backends"), "the matrix does not wait for the backends"),
        (put(*LAST, "if", value="${{ success() }}"), "the matrix does not wait for the backends, or not for failed"),
    ],
)  # fmt: skip
def test_a_faulty_workflow_is_caught(change: Callable[[dict[Any, Any]], None], fault: str) -> None:
    workflow = copy.deepcopy(WORKFLOW)
    change(workflow)
    assert any(each.startswith(fault) for each in faults(workflow))


def test_a_job_without_a_time_limit_is_caught() -> None:
    workflow = copy.deepcopy(WORKFLOW)
    del workflow["jobs"]["backend"]["timeout-minutes"]
    assert list(faults(workflow)) == ["backend: no time limit"]


def test_the_list_is_nox_s_own(tmp_path: Path) -> None:
    """The step is run as the runner does; one job comes from each session, by the keys that the workflow uses."""
    (step,) = [step for step in WORKFLOW["jobs"]["backends"]["steps"] if step.get("id") == "list"]
    assert "nox --json -l -t backend" in step["run"]
    nox = tmp_path / "nox"
    nox.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nox "$@"\n', encoding="utf-8")
    nox.chmod(0o755)
    environ = os.environ | {"GITHUB_OUTPUT": str(tmp_path / "output"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["/bin/bash", "-e", "-c", step["run"]], cwd=ROOT, env=environ, check=True)
    (line,) = (tmp_path / "output").read_text(encoding="utf-8").splitlines()
    listed = json.loads(line.removeprefix("sessions="))
    assert [each["name"] for each in listed] == list(sessions("-t", "backend"))


def test_a_list_that_nox_cannot_make_ends_the_job(tmp_path: Path) -> None:
    (step,) = [step for step in WORKFLOW["jobs"]["backends"]["steps"] if step.get("id") == "list"]
    nox = tmp_path / "nox"
    nox.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    nox.chmod(0o755)
    environ = os.environ | {"GITHUB_OUTPUT": str(tmp_path / "output"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(["/bin/bash", "-e", "-c", step["run"]], env=environ).returncode == 3
    assert not (tmp_path / "output").exists()


ARTIFACTS = [
    {
        "expired": False,
        "workflow_run": {"id": 5, "head_branch": "feature", "head_repository_id": 1, "repository_id": 1},
    },
    {"expired": False, "workflow_run": {"id": 4, "head_branch": "main", "head_repository_id": 2, "repository_id": 1}},
    {"expired": True, "workflow_run": {"id": 3, "head_branch": "main", "head_repository_id": 1, "repository_id": 1}},
    {"expired": False, "workflow_run": {"id": 2, "head_branch": "main", "head_repository_id": 1, "repository_id": 1}},
    {"expired": False, "workflow_run": {"id": 1, "head_branch": "main", "head_repository_id": 1, "repository_id": 1}},
]
"""Newest first, as GitHub lists them: another branch's, a fork's, one that is gone, and two that would do."""


@pytest.mark.skipif(shutil.which("jq") is None, reason="gh's own jq is stood in for by the real one")
@pytest.mark.parametrize(("artifacts", "downloaded"), [(ARTIFACTS, "2"), (ARTIFACTS[:3], None), ([], None)])
def test_the_baseline_is_the_default_branch_s_newest_and_no_fork_s(
    tmp_path: Path, artifacts: list[dict[str, Any]], downloaded: str | None
) -> None:
    """The step is run as the runner does, against a `gh` that lists these artifacts."""
    (step,) = [step for step in WORKFLOW["jobs"]["matrix"]["steps"] if step.get("id") == "baseline"]
    (tmp_path / "list.json").write_text(json.dumps({"artifacts": artifacts}), encoding="utf-8")
    gh = tmp_path / "gh"
    gh.write_text(
        f'#!/bin/sh\ncase "$1" in\napi) shift 3; exec jq -r "$1" "{tmp_path}/list.json" ;;\n'
        f'run) echo "$3" > "{tmp_path}/downloaded" ;;\nesac\n',
        encoding="utf-8",
    )
    gh.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BRANCH": "main", "GITHUB_REPOSITORY": "o/r"}
    subprocess.run(["/bin/bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environ, check=True)
    found = tmp_path / "downloaded"
    assert (found.read_text(encoding="utf-8").strip() if found.exists() else None) == downloaded
