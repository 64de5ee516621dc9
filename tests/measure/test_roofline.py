"""What a machine sustains: less than its make allows, repeatable, and told when it changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.devices import cpu_device
from assay.measure import roofline
from assay.measure.peak import peak
from assay.measure.roofline import best, disturbance
from assay.schema import Precision
from assay.session_report import MachinePeak


def test_a_product_reaches_a_part_of_what_the_make_allows() -> None:
    device = cpu_device()
    found = roofline.products(device, Precision.F32)
    limit = peak(device, Precision.F32)
    assert limit is not None
    assert {"torch", "openvino", "onnxruntime"} <= set(found)
    assert all(1e-3 * limit < rate < limit for rate in found.values())


@pytest.mark.parametrize("able", [True, False])
def test_narrow_products_are_tried_by_whatever_has_them(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(roofline, "_openvino_computes", lambda precision: able)
    monkeypatch.setattr(roofline, "SIZES", (256,))
    assert set(roofline.products(cpu_device(), Precision.BF16)) == {"torch", *(["openvino"] if able else [])}


def test_memory_is_read_and_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "ROOM", 2**26)
    monkeypatch.setattr(roofline, "CACHES", 0)
    found = roofline.bandwidth(cpu_device())
    assert set(found) == {"sum", "matrix-vector product", "copy"}
    assert all(1e8 < rate < 5e12 for rate in found.values())


def test_arrays_are_larger_than_the_caches(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1024K", "256M", "odd")):
        folder = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
    caches = 2**15 + 2**20 + 2**28
    found = roofline._array_size(tmp_path)
    assert found <= roofline.CACHES * caches
    assert found >= min(roofline.CACHES * caches, roofline.ROOM) - 4096 or found % 4096 == 0


def test_caches_of_several_cores_count_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cores with a first level of their own, of which two share a last level; a fifth is not this process's."""
    monkeypatch.setattr(roofline, "cores", lambda: frozenset(range(4)))
    for core in range(5):
        for index, (size, owners) in enumerate((("32K", f"{core}"), ("32M", f"{core // 2 * 2}-{core // 2 * 2 + 1}"))):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cache/index{index}"
            folder.mkdir(parents=True)
            (folder / "size").write_text(f"{size}\n")
            (folder / "shared_cpu_list").write_text(f"{owners}\n")
    assert sum(roofline._caches(tmp_path).values()) == 4 * 2**15 + 2 * 2**25


def machine(product: float, bandwidth: float, precision: str = "f32") -> MachinePeak:
    return MachinePeak(
        at="2026-01-01T00:00:00+00:00", bandwidth=best({"sum": bandwidth}),
        products={precision: best({"torch": product / 2, "openvino": product})},
    )  # fmt: skip


def test_the_best_of_what_was_tried_counts() -> None:
    found = best({"torch": 1e11, "openvino": 2e11})
    assert (found.value, found.by) == (2e11, "openvino")
    assert found.tried == {"torch": 1e11, "openvino": 2e11}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (machine(2e11, 3e10), machine(1.9e11, 2.8e10), None),
        (machine(2e11, 3e10), machine(1e11, 3e10), "its f32 matrix product was 2.00 times as fast"),
        (machine(2e11, 3e10), machine(2e11, 6e10), "its memory bandwidth was 2.00 times as fast"),
        (machine(2e11, 3e10), machine(1e11, 3e10, "bf16"), None),
    ],
)
def test_a_machine_that_was_disturbed_is_said_to_be(before: MachinePeak, after: MachinePeak, said: str | None) -> None:
    found = disturbance((before, after))
    assert (found or "").startswith(said or "") and bool(found) is bool(said)
    assert disturbance((before,)) is None and disturbance(()) is None
