"""How a cell wants its roles run, by answers from nobody."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from assay.cell import CellRun
from assay.devices import Device
from assay.installed import Findings, Installation
from assay.plan import make_plan
from assay.roles.process import Answer, Request, RoleFailed
from assay.schedule import Work
from assay.schema import Failure

WEIGHTS: dict[str, Any] = {
    "artifact": {}, "path": "",
    "ref": {"sha256": "0" * 64, "source": "local", "name": "nobody's"},
}  # fmt: skip
SOFTWARE: dict[str, Any] = {"modules": {}, "libraries": (), "code": {}}
ANSWERS: dict[str, dict[str, Any]] = {
    "builder": {"checkpoint": WEIGHTS, "twin": WEIGHTS, "config": ""}, "runner": {"software": SOFTWARE},
    "preprocessor": {"notes": [], "samples": {}}, "perturber": WEIGHTS | {"tensor": "nobody's"},
}  # fmt: skip


def bert(backend: str, folder: Path, installation: Installation) -> Work:
    """A cell of BERT."""
    plan = make_plan(backend=backend, families=("bert",), precisions=("f32",))
    device = Device(kind="cpu", index=0, name="a processor")
    return CellRun(plan, plan.places[0], device, folder, lambda *_: None, installation).run()


def requests(work: Work, count: int) -> list[Request]:
    """The first requests of a cell, each of which is answered."""
    found = [next(work)]
    while len(found) < count:
        found.append(work.send(Answer(ANSWERS[found[-1].role], (), 0.0, 0.0)))
    return found


@pytest.mark.parametrize("backend", ["cpu", "onnxruntime"])
def test_threads_spin_where_nothing_runs_beside_them(backend: str, tmp_path: Path) -> None:
    found = requests(bert(backend, tmp_path, Installation()), 6)
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


def test_files_are_hashed_beside_other_roles_and_in_no_other_cell(tmp_path: Path) -> None:
    hash_on, hashed = Event(), Event()

    class Slow(Installation):
        def compare(self, *_: object, **__: object) -> Findings:
            hash_on.wait()
            hashed.set()
            return Findings()

    work = bert("onnxruntime", tmp_path, Slow())
    assert requests(work, 6)[-1].folder.name == "perturbed"
    assert not hashed.is_set()
    Timer(0.05, hash_on.set).start()
    broken = Failure(role="runner", phase="load", reason="nobody answers")
    with pytest.raises(StopIteration) as ended:  # the cell is over, and another's turn to be timed may come
        work.throw(RoleFailed(broken, (), 0.0))
    assert ended.value.value.failure == broken
    assert hashed.is_set()
