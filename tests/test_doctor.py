from __future__ import annotations

from types import SimpleNamespace

import pytest

from assay import backends, doctor
from assay.devices import Device
from assay.errors import Unavailable, UsageError


def install(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """A backend named `odd`, and no other."""
    backend = SimpleNamespace(
        name="odd",
        environment="odds",
        preload=("json.decoder",),
        builder_preload=(),
        export_preload=(),
        devices=lambda: (DEVICE,),
    )
    vars(backend).update(changes)
    monkeypatch.setattr(backends, "names", lambda: ("odd",))
    monkeypatch.setattr(backends, "load", lambda name: backend)
    monkeypatch.setattr(doctor, "HARNESS", ())


DEVICE = Device("cpu", 0, "Example 9000")


def test_every_backend_has_a_diagnosis() -> None:
    found = doctor.examine()
    assert tuple(diagnosis.backend for diagnosis in found) == backends.names()
    for diagnosis in found:
        assert diagnosis.reason
        assert bool(diagnosis.devices) == diagnosis.available
        assert bool(diagnosis.remedy) == bool(diagnosis.missing)


def test_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    (diagnosis,) = doctor.examine()
    assert diagnosis.ready
    assert (diagnosis.reason, diagnosis.devices) == ("Example 9000", (DEVICE,))


def test_software_that_is_missing_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, builder_preload=("no_such_runtime.inner", "no_such_runtime.other"))
    diagnosis = doctor.diagnose("odd")
    assert diagnosis.available and not diagnosis.ready
    assert (diagnosis.missing, diagnosis.remedy) == (("no_such_runtime",), "nox -s odds")


def test_a_device_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> tuple[Device, ...]:
        raise Unavailable("nothing there", ("here", "there"))

    install(monkeypatch, devices=none)
    diagnosis = doctor.diagnose("odd")
    assert not diagnosis.available and not diagnosis.ready
    assert (diagnosis.reason, diagnosis.looked_for) == ("nothing there", ("here", "there"))


def test_a_plugin_that_cannot_be_loaded_is_one_diagnosis(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)

    def broken(name: str) -> None:
        raise UsageError("backend 'odd' (odd:BACKEND) cannot be loaded: no module named 'odd'")

    monkeypatch.setattr(backends, "load", broken)
    (diagnosis,) = doctor.examine()
    assert not diagnosis.available
    assert "cannot be loaded" in diagnosis.reason


def test_unknown_backend() -> None:
    with pytest.raises(UsageError, match="did you mean openvino"):
        doctor.diagnose("openvno")
