"""Sessions that choose a device or go on with an earlier report; the cells are made up, the rest is real."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from assay import checkpoints, session
from assay.backends.cpu import Cpu
from assay.checkpoints import Checkpoint, Source
from assay.devices import Device
from assay.errors import Unavailable, UsageError
from assay.plan import Place, Plan, make_plan
from assay.progress import QuietProgress
from assay.roles.process import role_environment
from assay.schedule import Work
from assay.schema import FLOATS, Cell, Precision, Status
from assay.session import run_session
from assay.session_report import SessionReport
from tests import strategies as make
from tests.conftest import report_in

NOT_FAILED = {Status.REAL, Status.UNAVAILABLE}
DEVICES = (Device("cuda", 0, "Example 9000"), Device("cuda", 1, "Example 100"))

Cells = Callable[[str], Cell]


class Ran(list[str]):
    """The cells that were run, with their precision if the plan has several, and the devices that they were given."""

    devices: list[Device]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Every cell is REAL but those in `outcomes`."""
    ran = Ran()
    ran.devices = []

    class MadeUp:
        def __init__(self, plan: Plan, place: Place, device: Device, *_: Any) -> None:
            self.plan, self.place, self.device = plan, place, device

        def run(self) -> Work:
            yield from ()
            family, precision = self.place
            ran.append(family if len(self.plan.precisions) == 1 else str(self.place))
            ran.devices.append(self.device)
            found = OUTCOMES.get(str(self.place), OUTCOMES.get(family, make.cell))(family)
            if isinstance(found, KeyboardInterrupt):
                raise found
            changes = {"size": self.plan.size_of(family), "precision": precision, "started_at": session.now()}
            return found.model_copy(update=changes)

    monkeypatch.setattr(session, "CellRun", MadeUp)
    return ran


OUTCOMES: dict[str, Callable[[str], Any]] = {}
"""By family, or by family and precision."""


@pytest.fixture(autouse=True)
def outcomes() -> Iterator[dict[str, Callable[[str], Any]]]:
    """What comes of a family's next cell."""
    OUTCOMES.clear()
    yield OUTCOMES
    OUTCOMES.clear()


@pytest.fixture
def go(tmp_path: Path, ran: Ran, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SessionReport]:
    """A session of three families; what it ran is asked of `ran`."""
    monkeypatch.setattr(session.needs, "check", lambda plan, chosen: None)  # the checkpoints are made up
    monkeypatch.setattr(session, "_peak", lambda *_: None)  # half a minute of products, about which nothing is asked

    def go(
        keep: Collection[Status] | None = None, families: Sequence[str] = ("bert", "clip", "t5"), **options: Any
    ) -> SessionReport:
        ran.clear()
        plan = make_plan(backend="cpu", families=families, **options)
        return run_session(plan, tmp_path, progress=QuietProgress(), keep=keep)

    return go


def statuses(report: SessionReport) -> dict[str, str]:
    return {cell.family: str(cell.status) for cell in report.cells}


# Going on


def test_only_failed_runs_what_failed_and_keeps_the_rest(
    go: Any, ran: Ran, outcomes: dict[str, Any], tmp_path: Path
) -> None:
    outcomes["clip"] = make.failed
    outcomes["t5"] = lambda family: make.unavailable(family, "cpu")
    first = go()
    assert statuses(first) == {"bert": "REAL", "clip": "FAILED", "t5": "UNAVAILABLE"}
    outcomes.clear()
    second = go(NOT_FAILED)
    assert ran == ["clip"]
    assert statuses(second) == {"bert": "REAL", "clip": "REAL", "t5": "UNAVAILABLE"}
    assert (second.cells[0], second.cells[2]) == (first.cells[0], first.cells[2])
    assert report_in(tmp_path / "sessions") == second  # one report still, and its own file
    assert second.finished_at is not None
    go(NOT_FAILED)
    assert ran == []


def test_resume_runs_what_is_missing_and_no_failure_again(go: Any, ran: Ran, outcomes: dict[str, Any]) -> None:
    outcomes |= {"bert": make.failed, "clip": lambda family: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        go()
    outcomes.clear()
    assert statuses(go(set(Status))) == {"bert": "FAILED", "clip": "REAL", "t5": "REAL"}
    assert ran == ["clip", "t5"]


def test_a_failure_stands_until_its_cell_has_run_again(
    go: Any, ran: Ran, outcomes: dict[str, Any], tmp_path: Path
) -> None:
    outcomes |= {"bert": make.failed, "t5": make.failed}
    go()
    outcomes |= {"bert": make.cell, "t5": lambda family: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        go(NOT_FAILED)
    assert statuses(report_in(tmp_path / "sessions")) == {"bert": "REAL", "clip": "REAL", "t5": "FAILED"}
    outcomes.clear()
    assert statuses(go(NOT_FAILED)) == {"bert": "REAL", "clip": "REAL", "t5": "REAL"}
    assert ran == ["t5"]


@pytest.mark.parametrize("options", [{"families": ("bert", "clip")}, {"precisions": ("bf16",)}, {"device": "cpu"}])
def test_another_plan_begins_anew(go: Any, ran: Ran, options: dict[str, Any]) -> None:
    go()
    go(NOT_FAILED, **options)
    assert len(ran) == len(options.get("families", "123"))


def test_a_report_names_the_machine_s_devices(go: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "accelerators", lambda: ("NVIDIA H200", "NVIDIA H200"))
    assert go().machine.devices == ("NVIDIA H200", "NVIDIA H200")


@pytest.mark.parametrize("what", ["describe_machine", "describe_environment"])
def test_what_another_machine_or_other_software_left_is_not_gone_on_with(
    go: Any, ran: Ran, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    first = go()
    other = {
        "describe_machine": make.on("elsewhere", first),
        "describe_environment": first.environment.model_copy(update={"packages": {"torch": "0.1"}}),
    }
    monkeypatch.setattr(session, what, lambda *_: other[what])
    go(NOT_FAILED)
    assert ran == ["bert", "clip", "t5"]
    assert len(list((tmp_path / "sessions").iterdir())) == 2


def test_another_checkpoint_of_the_user_is_another_plan(
    go: Any, ran: Ran, outcomes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(family: str, source: Source) -> Checkpoint:
        ref = make.checkpoint(source.name, "path")
        return Checkpoint(family, source.path, ref.sha256, "path", ref.name, "own")

    monkeypatch.setattr(checkpoints, "find", lambda text: Source(Path(text), text))
    monkeypatch.setattr(checkpoints, "opened", opened)
    outcomes["bert"] = lambda family: make.cell(family, checkpoint=make.checkpoint("red", "path"))
    go(families=(), models={"bert": "red"})
    for model, again in (("red", []), ("blue", ["bert"])):
        go(NOT_FAILED, families=(), models={"bert": model})
        assert ran == again


def test_a_failure_of_an_unknown_checkpoint_is_never_kept(
    go: Any, ran: Ran, outcomes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    red = Checkpoint("bert", Path("red"), "", "path", "red", "own")
    monkeypatch.setattr(checkpoints, "find", lambda text: Source(Path(text), text))
    monkeypatch.setattr(checkpoints, "opened", lambda family, source: red)
    outcomes["bert"] = make.failed
    for keep in (None, set(Status)):
        go(keep, families=(), models={"bert": "red"})
        assert ran == ["bert"]


# Devices


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend with two."""
    monkeypatch.setattr(Cpu, "devices", lambda self: DEVICES)


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize(("asked", "index"), [(None, 0), ("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_every_cell_runs_on_the_device_that_was_asked_for(go: Any, ran: Ran, asked: str | None, index: int) -> None:
    report = go(device=asked)
    assert ran.devices == [DEVICES[index]] * 3
    assert report.asked_device == asked


@pytest.mark.usefixtures("two_devices")
def test_what_ran_on_another_device_is_not_gone_on_with(go: Any, ran: Ran) -> None:
    go(device="cuda:0")
    go(NOT_FAILED, device="cuda:1")
    assert ran == ["bert", "clip", "t5"]
    go(NOT_FAILED, device="cuda:1")
    assert ran == []


@pytest.mark.usefixtures("two_devices")
def test_an_unknown_device_is_refused_before_anything_runs(go: Any, ran: Ran, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"takes cuda:0 \(Example 9000\), cuda:1 \(Example 100\) here, not 'cuda:2'"):
        go(device="cuda:2")
    assert ran == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [{"device": "cuda:7"}, {"precisions": ("bf16",)}, {}])
def test_where_no_device_is_every_cell_says_so(
    go: Any, ran: Ran, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    def none(self: Cpu) -> Sequence[Device]:
        raise Unavailable("no NVIDIA driver", ("libcuda.so.1",))

    monkeypatch.setattr(Cpu, "devices", none)
    assert set(statuses(go(**options)).values()) == {"UNAVAILABLE"}
    assert ran == []


# Precisions


def places(report: SessionReport) -> dict[str, str]:
    return {f"{cell.family} {cell.precision}": str(cell.status) for cell in report.cells}


def test_every_family_has_a_cell_of_each_precision_all_of_the_first_one_first(go: Any, ran: Ran) -> None:
    report = go(families=("bert", "t5"), precisions=("bf16", "f32"))
    assert ran == ["bert f32", "t5 f32", "bert bf16", "t5 bf16"]
    assert [f"{cell.family} {cell.precision}" for cell in report.cells] == ran
    assert (report.planned, report.precisions) == (("bert", "t5"), (Precision.F32, Precision.BF16))


def test_only_failed_runs_the_precision_that_failed(go: Any, ran: Ran, outcomes: dict[str, Any]) -> None:
    outcomes["bert bf16"] = make.failed
    wanted = {"families": ("bert", "t5"), "precisions": ("f32", "bf16")}
    go(**wanted)
    outcomes.clear()
    assert set(places(go(NOT_FAILED, **wanted)).values()) == {"REAL"}
    assert ran == ["bert bf16"]


def test_resume_goes_on_where_it_was_interrupted_between_two_precisions(
    go: Any, ran: Ran, outcomes: dict[str, Any]
) -> None:
    wanted = {"families": ("bert", "t5"), "precisions": ("f32", "bf16")}
    outcomes["bert bf16"] = lambda family: KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        go(**wanted)
    outcomes.clear()
    assert list(places(go(set(Status), **wanted))) == ["bert f32", "t5 f32", "bert bf16", "t5 bf16"]
    assert ran == ["bert bf16", "t5 bf16"]
    go(set(Status), **wanted | {"precisions": ("f32",)})
    assert ran == ["bert", "t5"]  # another plan


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("asked", [("f32", "bf16"), ("bf16",)])
def test_a_precision_that_the_device_has_not_leaves_unavailable_cells(
    go: Any, ran: Ran, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    able = {DEVICES[0]: FLOATS, DEVICES[1]: (Precision.F32,)}
    monkeypatch.setattr(Cpu, "precisions", lambda self, device: able[device])
    report = go(device="cuda:1", precisions=asked)
    assert len(ran) == 3 * (len(asked) - 1)
    absent = [cell for cell in report.cells if cell.precision is Precision.BF16]
    assert {cell.status for cell in absent} == {Status.UNAVAILABLE} and len(absent) == 3
    assert absent[0].reason == "cpu computes in f32 on Example 100, not in bf16"
    assert set(places(go(device="cuda:0", precisions=asked)).values()) == {"REAL"}


def test_cuda_counts_its_devices_as_the_plan_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    assert role_environment()["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
