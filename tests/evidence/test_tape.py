"""A tape gives what another pass in the same arithmetic would give, and says so where it cannot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from assay import checkpoints, families
from assay.challenge import Challenges
from assay.evidence.float64 import Exact, TrueFloat64, float64_default
from assay.evidence.reference import Reference
from assay.evidence.rounding import perturbation
from assay.evidence.tape import Tape
from assay.schema import Precision

Function = Callable[[torch.Tensor], torch.Tensor]
WEIGHT = torch.nn.Parameter(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
MASK = torch.tensor([True, False, True, False])


def given() -> torch.Tensor:
    """The same numbers every time."""
    return torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def taped(function: Function) -> tuple[Tape, torch.Tensor]:
    """A tape of the function, and what it gave."""
    tape, inputs = Tape(), given()
    tape.inexact(inputs)
    with float64_default(), torch.no_grad(), tape, tape.mode:
        output = function(inputs)
    tape.end({"output": output})
    return tape, output


def passed(function: Function, arithmetic: Exact) -> torch.Tensor:
    """What a pass of its own gives in this arithmetic."""
    inputs = given()
    arithmetic.inexact(inputs)
    with float64_default(), torch.no_grad(), arithmetic, TrueFloat64():
        return function(inputs)


def drawn(draw: int) -> Exact:
    """The arithmetic of a draw."""
    return perturbation(Precision.F32, 7, draw, frozenset())


def again(tape: Tape, draw: int) -> torch.Tensor:
    """The same from the tape."""
    with float64_default(), torch.no_grad():
        return tape.again(drawn(draw))["output"]


@pytest.mark.parametrize("name", families.ORDER)
@pytest.mark.parametrize("precision", [Precision.F32, Precision.INT8])
def test_every_family_s_floor_is_that_of_passes(name: str, precision: Precision) -> None:
    checkpoint, family = checkpoints.local(name), families.load(name)
    reference = Reference(family, checkpoint.path)
    inputs = Challenges(family, checkpoint.config(), "0a").of_other_weights()[1]
    tape = Tape()
    reference.run(inputs, tape.mode, tape)
    assert tape.whole
    (floor,) = reference.noise([inputs], precision, seed=3, draws=2)
    _, spread, _ = reference.watched(inputs, precision, seed=3)  # which runs the model anew for each draw
    for output, values in floor.items():
        np.testing.assert_array_equal(values, spread[output][:2])


def by_expert(values: torch.Tensor) -> torch.Tensor:
    output = torch.zeros_like(values)
    for expert in range(2):
        rows = torch.nonzero((values.sum(1) > 0).long() == expert).flatten()
        output = output.index_add(0, rows, values[rows] @ WEIGHT * (expert + 1))
    return output


def by_item(values: torch.Tensor) -> torch.Tensor:
    return values * 2 if (values @ WEIGHT).sum().item() > 0 else values * 3


def by_list(values: torch.Tensor) -> torch.Tensor:
    return values * torch.tensor((values * 3).tolist())


def by_array(values: torch.Tensor) -> torch.Tensor:
    return values * torch.from_numpy((values * 3).numpy().copy())


def by_data(values: torch.Tensor) -> torch.Tensor:
    return values * (values * 3).data


def by_mask(values: torch.Tensor) -> torch.Tensor:
    return (values @ WEIGHT)[values[:, 0] > 0].sum(0)


def into_a_constant(values: torch.Tensor) -> torch.Tensor:
    table = torch.zeros(8, 4)
    table[2:6].copy_(values @ WEIGHT)
    return table + 1


def into_its_input(values: torch.Tensor) -> torch.Tensor:
    return values.mul_(2) @ WEIGHT


@pytest.mark.parametrize(
    "function", [by_expert, by_item, by_list, by_array, by_data, by_mask, into_a_constant, into_its_input]
)  # fmt: skip
def test_what_a_tape_cannot_repeat_it_does_not_claim_to(function: Function) -> None:
    assert not taped(function)[0].whole


def by_integers(values: torch.Tensor) -> torch.Tensor:
    length = int(MASK.sum().item())
    return values[MASK] * length + torch.nonzero(MASK).sum()


def in_place(values: torch.Tensor) -> torch.Tensor:
    found = values @ WEIGHT
    found[:, MASK] = 0.5
    found[0].add_(1)
    return torch.stack([found, found.exp_()])


def of_lists(values: torch.Tensor) -> torch.Tensor:
    left, right = torch.split(values @ WEIGHT, 2, dim=1)
    best, place = torch.max(right, dim=1)
    return torch.cat([left, best[:, None], place[:, None].to(left.dtype), torch.ones(4, 1)], dim=1)


def with_an_infinite_mask(values: torch.Tensor) -> torch.Tensor:
    hidden = torch.where(MASK, 0.0, torch.finfo(values.dtype).min)
    return torch.softmax(values @ WEIGHT + hidden, -1)


def of_waves(values: torch.Tensor) -> torch.Tensor:
    """As rotary positions: they follow from integers, but no runtime has them exactly."""
    angles = torch.arange(4.0)[:, None] * 1000.1
    return values * torch.cos(angles) + torch.sin(angles)


@pytest.mark.parametrize("function", [by_integers, in_place, of_lists, with_an_infinite_mask, of_waves])
def test_a_tape_gives_what_a_pass_gives_as_often_as_it_is_asked(function: Function) -> None:
    tape, output = taped(function)
    assert tape.whole
    assert torch.equal(output, passed(function, Exact()))
    draws = [again(tape, draw) for draw in (0, 1, 0)]
    assert torch.equal(draws[0], passed(function, drawn(0))) and torch.equal(draws[1], passed(function, drawn(1)))
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])
    assert tape.whole


def test_an_output_that_nothing_moves_is_kept() -> None:
    tape, output = taped(lambda values: MASK.double())
    assert tape.whole and torch.equal(again(tape, 0), output)


def test_a_tape_lets_go_of_what_no_later_step_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most as many results are held at once as a pass holds, or a large model would not fit."""

    def deep(values: torch.Tensor) -> torch.Tensor:
        for _ in range(50):
            values = torch.tanh(values @ WEIGHT)
        return values

    tape, _ = taped(deep)
    arithmetic = drawn(0)
    alive: set[int] = set()
    most = []
    result = type(arithmetic).result

    class Held(torch.Tensor):
        def __del__(self) -> None:
            alive.discard(id(self))

    def counted(self: object, func: object, arguments: object, found: torch.Tensor) -> torch.Tensor:
        held = result(arithmetic, func, arguments, found).as_subclass(Held)  # type: ignore[arg-type]
        alive.add(id(held))
        most.append(len(alive))
        return held

    monkeypatch.setattr(type(arithmetic), "result", counted)
    with float64_default(), torch.no_grad():
        tape.again(arithmetic)
    assert len(most) >= 100 and max(most) < 8
