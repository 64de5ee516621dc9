"""The trial itself: what is counted, and that a fault is killed for its effect and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from assay.schema import Metric, Phase, Precision
from tests import strategies as make
from tests.trial import kept, mutants, tf32, tried
from tests.trial.cost import costs, table
from tests.trial.honest import Judged
from tests.trial.lab import Specimen
from tests.trial.summary import Trial, interval
from tests.trial.tried import Tried

DEAD = Tried("layer skipped", "bert", "f32", 1e6, "INACCURATE", killed=True, equivalent=False, reason="off")
ALIVE = replace(DEAD, effect_in_floors=2.0, status="REAL", killed=False)
SAME = replace(ALIVE, name="other epsilon", effect_in_floors=0.0, equivalent=True)
HONEST = Judged("bert", "torch", "f32", 0, floors=[0.3, 0.4], alarms=[])


def trial(*tried: Tried, honest: Judged = HONEST) -> Trial:
    return Trial(full=False, seconds=1.0, mutants=tried, honest=[honest])


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    return Specimen("sentence-embeddings", Precision.F32, "5eed" * 8)


@pytest.mark.parametrize(
    ("fault", "killed"),
    [
        (mutants.untouched, False),
        (mutants.layer_skipped, True),
        (mutants.cls_for_mean_pooling, True),
        (mutants.tf32_for_f32, True),
    ],
)
def test_a_fault_is_killed_and_its_absence_is_not(specimen: Specimen, fault: mutants.Fault, killed: bool) -> None:
    found = tried.try_one(specimen, fault, 0)
    assert found is not None
    assert (found.killed, found.equivalent) == (killed, not killed)
    assert (found.status == "REAL") is not killed, found.reason


def test_one_timed_call_that_was_skipped_is_a_mock(specimen: Specimen) -> None:
    found = tried.skipped_call(specimen)
    assert (found.status, found.killed) == ("MOCK", True), found.reason
    assert "as far from its own input's answer as another's" in found.reason


def test_tf32_keeps_ten_bits_of_what_is_multiplied_and_rounds_ties_to_even() -> None:
    unit = 2.0**-10
    given = torch.tensor([1 + unit / 2, 1 + 3 * unit / 2, -1 - 0.51 * unit, 3e38, torch.inf, 0.1])
    wanted = torch.tensor([1, 1 + 2 * unit, -1 - unit, 3e38, torch.inf, 0.1])
    assert torch.equal(tf32.rounded(given)[[0, 1, 2, 4]], wanted[[0, 1, 2, 4]])
    assert torch.allclose(tf32.rounded(given), wanted, rtol=unit / 2, atol=0)
    layer, ones = torch.nn.Linear(64, 8), torch.ones(1, 64)
    with torch.inference_mode():
        layer.weight.copy_(1 + torch.rand(8, 64, generator=torch.Generator().manual_seed(0)))
        layer.bias.fill_(2.0**-13)
        with tf32.Tf32():
            lowered = layer(ones)
        wanted = tf32.rounded(layer.weight).sum(1) + layer.bias  # exact in float32; what is added is not rounded
        assert torch.equal(lowered[0], wanted)
        assert not torch.equal(layer(ones)[0], wanted)


def test_one_tensor_that_the_twin_s_run_keeps_is_found_by_the_twin_s_error(specimen: Specimen) -> None:
    (found,) = tried.kept_tensors(specimen, lambda names: [next(each for each in names if "query.weight" in each)])
    assert found.status == "INACCURATE" and found.killed
    assert "query.weight: relative error" in found.reason


def test_an_export_that_is_kept_by_less_than_its_content_is_found_by_the_tensor_that_it_misses() -> None:
    specimen = Specimen("language-model", Precision.F32, "5eed" * 8)
    (found,) = tried.stale_exports(specimen, lambda names: [next(each for each in names if "c_attn.weight" in each)])
    assert found.status == "INACCURATE" and found.killed
    assert "c_attn.weight in another order moves the outputs by" in found.reason


def test_what_an_architecture_lacks_is_no_mutant(specimen: Specimen) -> None:
    assert tried.try_one(specimen, mutants.stale_cache, 0) is None


def test_rates_are_counted_in_bands_without_what_has_no_effect() -> None:
    rates = trial(DEAD, DEAD, ALIVE, SAME).rates()
    assert rates == [("f32", "1 to 3", 0, 1), ("f32", "above 10", 2, 2)]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (trial(replace(DEAD, status="REAL", killed=False)), "survived with 1e+06 floors"),
        (trial(replace(SAME, status="FALLBACK")), "has no effect and is FALLBACK"),
        (trial(honest=replace(HONEST, alarms=["long: 3 floors"])), "bert on torch at f32: long: 3 floors"),
    ],
    ids=["survivor", "killed for another reason", "false alarm"],
)
def test_what_must_not_be_is_named(found: Trial, says: str) -> None:
    (fault,) = found.faults()
    assert says in fault


def test_a_trial_without_faults_has_none_and_says_what_it_did() -> None:
    found = trial(DEAD, ALIVE, SAME)
    assert found.faults() == []
    content = json.loads(found.to_json())
    assert content["honest"]["judgements"] == 2 and content["honest"]["false_alarms"] == 0
    assert [each["killed"] for each in content["mutants"]] == [True, False, False]
    assert "| f32 | above 10 | 1 of 1 | 100.0 % |" in found.tables()


def test_honest_errors_stand_beside_tf32_row_by_row() -> None:
    tf32 = replace(DEAD, name="tf32 for f32", effect_in_floors=810.4)
    lower = replace(HONEST, precision="bf16", floors=[9.0])
    found = Trial(full=False, seconds=1.0, mutants=[DEAD, tf32], honest=[HONEST, lower]).tables()
    assert "| bert | tiny | 2 | 0.35, 0.40 |  |  | 810 |" in found


def test_what_judging_costs_is_everything_that_a_benchmark_would_not_do() -> None:
    times = [
        ("builder", "export", 4.0), ("builder", "export twin", 1.0), ("runner", "load", 0.5),
        ("runner", "measure", 1.5), ("runner", "sweep", 1.0),
        ("runner", "trace", 0.5), ("preprocessor", "preprocessing", 1.0), ("runner", "load", 0.5),
        ("runner", "challenges", 0.5), ("judge", "reference", 3.0),
    ]  # fmt: skip
    phases = tuple(Phase(role=role, name=name, seconds=seconds) for role, name, seconds in times)
    cell = make.cell(phases=phases, metrics={"latency": Metric(value=0.5, unit="s")})
    (found,) = costs([cell])
    assert (found.plain, found.evidence, found.calls) == (8.0, 5.5, 11.0)
    assert "| bert | cpu | tiny | 1 | 8.00 | 5.50 | 0.69 | 11 |" in table([found])
    slow = cell.model_copy(update={"phases": (*phases, Phase(role="judge", name="evidence", seconds=100.0))})
    assert [(each.runs, each.evidence) for each in costs([slow, cell, cell])] == [(3, 5.5)]
    assert list(costs([make.unavailable("bert")])) == []


def test_every_tensor_is_listed_by_family_with_those_that_nothing_depends_on() -> None:
    survivor = replace(DEAD, status="REAL", killed=False, effect_in_floors=2.0)
    assert "| bert | 3 | 1 | 2 | 1 of 1 | 0 of 1 |" in kept.table([DEAD, survivor, SAME])


def test_intervals_are_wilson_s() -> None:
    # Agresti and Coull (1998) give 0 to 0.278 for none of ten.
    assert interval(0, 10) == "0.0 % to 27.8 %"
    assert interval(10, 10) == "72.2 % to 100.0 %"
