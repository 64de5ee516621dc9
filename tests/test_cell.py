"""How a cell wants its roles run, by answers from nobody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from assay.cell import CellRun
from assay.devices import Device
from assay.installed import Installation
from assay.plan import make_plan
from assay.roles.process import Answer, Request

WEIGHTS: dict[str, Any] = {
    "artifact": {}, "path": "",
    "ref": {"sha256": "0" * 64, "source": "local", "name": "nobody's"},
}  # fmt: skip
ANSWERS: dict[str, dict[str, Any]] = {
    "builder": {"checkpoint": WEIGHTS, "twin": WEIGHTS, "config": ""}, "runner": {},
    "preprocessor": {"notes": [], "samples": {}}, "perturber": WEIGHTS | {"tensor": "nobody's"},
}  # fmt: skip


def requests(backend: str, folder: Path, count: int) -> list[Request]:
    """The first requests of a cell of BERT, each of which is answered."""
    plan = make_plan(backend=backend, families=("bert",), precisions=("f32",))
    device = Device(kind="cpu", index=0, name="a processor")
    work = CellRun(plan, plan.places[0], device, folder, lambda *_: None, Installation()).run()
    found = [next(work)]
    while len(found) < count:
        found.append(work.send(Answer(ANSWERS[found[-1].role], (), 0.0, 0.0)))
    return found


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
def test_threads_spin_where_nothing_runs_beside_them(backend: str, tmp_path: Path) -> None:
    found = requests(backend, tmp_path, 6)
    builder, run, _, twin, perturber, perturbed = found
    roles = ["builder", "runner", "preprocessor", "runner", "perturber", "runner"]
    assert [each.role for each in found] == roles
    assert (run.alone, run.spins) == (True, True)
    assert not builder.spins and not perturber.spins
    assert not twin.alone and not perturber.alone and not perturbed.alone
    # Two processes of torch whose threads spin take ten times as long for each other; others have no such threads, and
    # keep to their one server, which has no torch in it.
    assert twin.spins == perturbed.spins == (backend != "cpu")
    assert twin.preload == perturbed.preload == run.preload
