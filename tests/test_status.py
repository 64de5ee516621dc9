"""The decision table, row by row, and its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.evidence import LAYERS
from assay.evidence.agreement import DECODING
from assay.schema import Check, Evidence, Layer, Status
from assay.status import PRECEDENCE, REQUIRED, conclude
from tests import strategies as make

PAGE = Path(__file__).parents[1] / "docs" / "judgement.md"
CHECKS = [(layer, name) for layer in LAYERS for name in LAYERS[layer]]
NEEDED = [(layer, name) for layer, name in CHECKS if layer in REQUIRED]
IDS = [f"{layer}-{name}" for layer, name in CHECKS]
NEEDED_IDS = [f"{layer}-{name}" for layer, name in NEEDED]


def judged(*evidence: Evidence) -> Status:
    return conclude(make.cell(evidence=evidence))[0]


def without(layer: Layer) -> list[Evidence]:
    return [evidence for evidence in make.evidence() if evidence.layer is not layer]


def provenance(*checks: Check, not_judged: str | None = None) -> Evidence:
    return Evidence(layer=Layer.PROVENANCE, checks=checks, not_judged=not_judged)


def test_everything_passed_is_real() -> None:
    assert conclude(make.cell())[0] is Status.REAL


def test_a_failure_is_failed_whatever_else_there_is() -> None:
    cell = make.failed(known=True, evidence=make.evidence())
    assert conclude(cell) == (Status.FAILED, "builder, build: killed by SIGSEGV")


def test_absent_hardware_is_unavailable() -> None:
    assert conclude(make.unavailable()) == (Status.UNAVAILABLE, "no NVIDIA driver")


def test_nothing_at_all_is_pending() -> None:
    assert conclude(make.unavailable().model_copy(update={"unavailable": None}))[0] is Status.PENDING


def test_evidence_about_no_checkpoint_is_unproven() -> None:
    status, reason = conclude(make.cell().model_copy(update={"checkpoint": None}))
    assert status is Status.UNPROVEN
    assert "which checkpoint" in reason


def test_checks_of_decoding_are_needed_where_tokens_are_decoded_alone() -> None:
    kept = tuple(check for check in make.evidence()[0].checks if check.name not in DECODING)
    evidence = (Evidence(layer=Layer.AGREEMENT, checks=kept), *without(Layer.AGREEMENT))
    decoding = make.cell(evidence=evidence)
    assert conclude(decoding) == (
        Status.UNPROVEN,
        "agreement not judged: no follows_tokens, tokens, reset in the report",
    )
    one_pass = decoding.model_copy(update={"workloads": make.WORKLOADS[:2]})
    assert conclude(one_pass)[0] is Status.REAL


@pytest.mark.parametrize(("layer", "name"), CHECKS, ids=IDS)
def test_a_failed_check_has_its_consequence(layer: Layer, name: str) -> None:
    cell = make.cell(evidence=make.evidence({(layer, name): False}))
    assert conclude(cell) == (LAYERS[layer][name], f"{name} was looked at")


@pytest.mark.parametrize(("layer", "name"), NEEDED, ids=NEEDED_IDS)
def test_a_check_without_a_number_leaves_the_cell_unproven(layer: Layer, name: str) -> None:
    cell = make.cell(evidence=make.evidence({(layer, name): None}))
    assert conclude(cell) == (Status.UNPROVEN, f"{layer} not judged: {name} was looked at")


@pytest.mark.parametrize(("layer", "name"), NEEDED, ids=NEEDED_IDS)
def test_a_check_that_is_not_there_leaves_the_cell_unproven(layer: Layer, name: str) -> None:
    checks = tuple(make.check(other) for other in LAYERS[layer] if other != name)
    status, reason = conclude(make.cell(evidence=[*without(layer), Evidence(layer=layer, checks=checks)]))
    assert status is Status.UNPROVEN
    assert reason.startswith(str(layer))


@pytest.mark.parametrize("layer", REQUIRED)
def test_a_required_layer_that_is_absent_or_not_judged_leaves_the_cell_unproven(layer: Layer) -> None:
    assert judged(*without(layer)) is Status.UNPROVEN
    assert judged(*without(layer), Evidence(layer=layer)) is Status.UNPROVEN
    full = tuple(make.check(name) for name in LAYERS[layer])
    assert judged(*without(layer), Evidence(layer=layer, checks=full, not_judged="why not")) is Status.UNPROVEN


def test_provenance_may_be_open_but_not_failed() -> None:
    others = without(Layer.PROVENANCE)
    assert judged(*others) is Status.REAL
    assert judged(*others, provenance(not_judged="why not")) is Status.REAL
    assert judged(*others, provenance(make.check("files"))) is Status.REAL
    assert judged(*others, provenance(make.check("files", passed=False))) is Status.UNPROVEN


@pytest.mark.parametrize("layer", list(Layer))
def test_a_failed_check_that_nobody_knows_is_no_proof(layer: Layer) -> None:
    full = tuple(make.check(name) for name in LAYERS[layer])
    unknown = Evidence(layer=layer, checks=(*full, make.check("from_the_future", passed=False)))
    assert judged(*without(layer), unknown) is Status.UNPROVEN


@given(st.sets(st.sampled_from(CHECKS), min_size=1))
def test_the_gravest_failure_decides(failures: set[tuple[Layer, str]]) -> None:
    consequences = {LAYERS[layer][name] for layer, name in failures}
    status, reason = conclude(make.cell(evidence=make.evidence(dict.fromkeys(failures, False))))
    assert status is next(each for each in PRECEDENCE if each in consequences)
    assert all((name in reason) for layer, name in failures if LAYERS[layer][name] is status)


def test_an_error_is_graver_than_what_could_not_be_judged() -> None:
    evidence = make.evidence({(Layer.AGREEMENT, "error"): None, (Layer.PLACEMENT, "elsewhere"): False})
    assert judged(*evidence) is Status.FALLBACK


def test_every_status_can_be_reached() -> None:
    reached = {LAYERS[layer][name] for layer, name in CHECKS}
    assert reached <= set(PRECEDENCE)
    assert reached | {Status.REAL, Status.FAILED, Status.UNAVAILABLE, Status.PENDING, Status.UNPROVEN} == set(Status)


def test_the_page_names_every_check_with_its_consequence() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| .+ \| `(\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(str(layer), name, str(LAYERS[layer][name])) for layer, name in CHECKS]


def test_the_page_has_the_statuses_in_the_order_in_which_they_are_concluded() -> None:
    first = PAGE.read_text(encoding="utf-8").partition("## From check")[0]
    order = list(dict.fromkeys(re.findall(r"\| `(\w+)` \|$", first, re.MULTILINE)))
    assert order == ["FAILED", "UNAVAILABLE", "PENDING", *map(str, PRECEDENCE), "REAL"]
