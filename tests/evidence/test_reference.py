"""The reference is true float64, its noise floor is what honest arithmetic looks like, and it is restored after use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from assay import checkpoints, families
from assay.challenge import Challenges
from assay.evidence import rounding
from assay.evidence.case import Answer
from assay.evidence.deviation import K
from assay.evidence.float64 import Exact, TrueFloat64
from assay.evidence.reference import DRAWS, Reference
from assay.evidence.rounding import ACCUMULATION, COORDINATES, displaced, perturbation
from assay.schema import Precision


class Witness(TorchDispatchMode):
    """Writes down which operations gave a float32 or a smaller float."""

    def __init__(self) -> None:
        super().__init__()
        self.lowered: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, torch.Tensor) and each.dtype in (torch.float32, torch.float16, torch.bfloat16):
                self.lowered.add(str(func))
        return result


def case(name: str, seed: str = "0a") -> tuple[Reference, Challenges]:
    """A family's reference and challenges."""
    checkpoint = checkpoints.local(name)
    family = families.load(name)
    return Reference(family, checkpoint.path), Challenges(family, checkpoint.config(), seed)


@pytest.mark.parametrize("name", families.ORDER)
def test_no_float32_is_left_in_the_reference(name: str) -> None:
    reference, challenges = case(name)
    for _, inputs in challenges.shapes():
        with Witness() as witness:
            outputs = reference.outputs(inputs)
        assert witness.lowered == set()
        assert {array.dtype for array in outputs.values()} == {np.dtype("float64")}


@pytest.mark.parametrize("name", families.ORDER)
def test_a_model_too_large_for_float64_gives_the_same_a_tensor_at_a_time(name: str) -> None:
    reference, challenges = case(name)
    streamed = Reference(families.load(name), checkpoints.local(name).path, kept=0)
    _, inputs = list(challenges.shapes())[1]
    expected = reference.outputs(inputs)
    with Witness() as witness:
        found = streamed.outputs(inputs)
    # Casting a parameter down would show as 1e-7; products over a transposed copy may be summed in another order.
    for output, array in expected.items():
        np.testing.assert_allclose(found[output], array, rtol=0, atol=1e-12 * np.abs(array).max())
    assert witness.lowered <= {"aten.embedding.default"}  # rows of a float32 table, widened right after
    (noise,), (streamed_noise,) = (each.noise([inputs], Precision.F32, seed=1) for each in (reference, streamed))
    for output, array in expected.items():
        floors = [float(np.linalg.norm(each[output] - array)) for each in (noise, streamed_noise)]
        assert floors[1] == pytest.approx(floors[0], rel=0.5)


def test_the_witness_sees_what_stock_float64_leaves_in_float32() -> None:
    module = families.load("llama").load(checkpoints.local("llama").path, attention="eager").double()
    _, challenges = case("llama")
    inputs = {name: torch.from_numpy(array) for name, array in next(challenges.shapes())[1].items()}
    with torch.no_grad(), Witness() as witness:
        module(**inputs)
    assert witness.lowered


@pytest.mark.parametrize("name", families.ORDER)
def test_honest_f32_is_within_the_bound_and_a_precision_below_is_not(name: str) -> None:
    reference, challenges = case(name)
    family = families.load(name)
    module = family.load(checkpoints.local(name).path)
    for label, inputs in challenges.shapes():
        expected = reference.outputs(inputs)
        (noise,) = reference.noise([inputs], Precision.F32, seed=1)

        def answer(outputs: dict[str, np.ndarray], label: str = label, inputs: Any = inputs, expected: Any = expected,
                   noise: Any = noise) -> Answer:  # fmt: skip
            return Answer(label, inputs, outputs, expected, noise, family.masks(inputs))

        with torch.no_grad():
            honest = module(**{key: torch.from_numpy(array) for key, array in inputs.items()})
        share = answer({key: tensor.numpy() for key, tensor in honest.items()}).deviation(Precision.F32).share
        assert 1 / K[Precision.F32] / 10 < share < 1  # a floor ten times too high would hide ten times the error
        # The weights as TF32 would read them, with 10 bits of mantissa: the least of the usual lowerings.
        lowered = families.load(name).load(checkpoints.local(name).path)
        with torch.no_grad():
            for parameter in lowered.parameters():
                parameter.copy_((parameter.view(torch.int32) & ~0x1FFF).view(torch.float32))
            outputs = lowered(**{key: torch.from_numpy(array) for key, array in inputs.items()})
        assert answer({key: tensor.numpy() for key, tensor in outputs.items()}).deviation(Precision.F32).share > 10


def test_drawing_noise_leaves_the_reference_as_it_was() -> None:
    reference, challenges = case("bert")
    _, inputs = next(challenges.shapes())
    before = reference.outputs(inputs)
    first = reference.noise([inputs], Precision.F32, seed=1)[0]["last_hidden_state"]
    again = reference.noise([inputs], Precision.F32, seed=1)[0]["last_hidden_state"]
    other = reference.noise([inputs], Precision.F32, seed=100)[0]["last_hidden_state"]
    after = reference.outputs(inputs)
    np.testing.assert_array_equal(before["last_hidden_state"], after["last_hidden_state"])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_floor_grows_with_the_unit_round_off() -> None:
    reference, challenges = case("bert")
    _, inputs = next(challenges.shapes())
    exact = reference.outputs(inputs)["last_hidden_state"]
    sizes = {
        precision: float(np.linalg.norm(reference.noise([inputs], precision, seed=1)[0]["last_hidden_state"] - exact))
        for precision in (Precision.F32, Precision.F16, Precision.BF16)
    }
    assert sizes[Precision.F16] / sizes[Precision.F32] == pytest.approx(2**13 / ACCUMULATION[Precision.F32], rel=0.3)
    assert sizes[Precision.BF16] / sizes[Precision.F16] == pytest.approx(2**3, rel=0.3)


def test_sums_of_equal_terms_miss_their_mean_by_more_than_a_random_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a signal is constant, a normalisation over time shows what its mean was missed by, and nothing else."""
    found, challenges = case("wav2vec2")
    fresh = challenges.timed(0)
    constant = fresh | {"input_values": np.full_like(fresh["input_values"], 0.5)}

    def floor(inputs: Any) -> np.ndarray:
        (noise,) = found.noise([inputs], Precision.F32, seed=1)
        (exact,) = found.all_outputs([inputs])
        return np.asarray(np.sqrt(np.mean((noise["logits"] - exact["logits"]) ** 2)))

    with_sums = floor(constant), floor(fresh)
    monkeypatch.setattr(rounding, "LANES", 2**30)
    walk = floor(constant), floor(fresh)
    assert with_sums[0] > 5 * walk[0]
    assert with_sums[1] == walk[1]


def test_what_follows_from_integers_alone_is_not_perturbed() -> None:
    """T5's buckets lie on whole logarithms: a nudge there would be a jump, and the floor would hide everything."""
    reference, challenges = case("t5")
    for _, inputs in challenges.shapes():
        exact = reference.outputs(inputs)["logits"]
        spread = reference.noise([inputs], Precision.F32, seed=1)[0]["logits"] - exact
        assert np.abs(spread).max() < 1e-4 * np.abs(exact).max()


def test_a_tensor_that_nothing_uses_is_told_from_one_that_counts() -> None:
    reference, challenges = case("wav2vec2")
    _, inputs = next(challenges.shapes())
    exact = reference.outputs(inputs)["logits"]
    tensors = load_file(checkpoints.local("wav2vec2").path / "model.safetensors")
    idle = {
        "wav2vec2.masked_spec_embed": tensors["wav2vec2.masked_spec_embed"],
        "nowhere": np.full((3, 3), 0.123, np.float32),
    }
    assert reference.unused(idle, inputs) == set(idle)
    assert reference.unused(idle | {"lm_head.weight": tensors["lm_head.weight"]}, inputs) == set(idle)
    assert reference.unused({}, inputs) == set()
    np.testing.assert_array_equal(reference.outputs(inputs)["logits"], exact)


@pytest.mark.parametrize("name", families.ORDER)
def test_calls_of_one_shape_are_one_batch_and_each_gets_its_own_outputs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, challenges = case(name)
    calls = [challenges.timed(0), *(inputs for _, inputs in challenges.shapes()), challenges.timed(1)]
    alone = [reference.outputs(inputs) for inputs in calls]
    floors = [reference.noise([inputs], Precision.F32, seed=1)[0] for inputs in calls]
    passes = []
    monkeypatch.setattr(reference.module, "forward", lambda **inputs: passes.append(1) or forward(**inputs))
    forward = type(reference.module).forward.__get__(reference.module)
    together, noise = reference.all_outputs(calls), reference.noise(calls, Precision.F32, seed=1)
    assert len(passes) < len(calls) * (1 + DRAWS)
    for own, found, floor, spread in zip(alone, together, floors, noise, strict=True):
        assert own.keys() == found.keys()
        for output, array in own.items():
            np.testing.assert_allclose(found[output], array, rtol=0, atol=1e-11 * np.abs(array).max())
            assert spread[output].shape == floor[output].shape
            floors_of = [float(np.linalg.norm(each[output] - array)) for each in (floor, spread)]
            # A single similarity has four draws; their norm varies by a factor of three, that of many by a tenth.
            assert 0.2 < floors_of[1] / floors_of[0] < 5


def test_an_interpolation_is_off_by_what_float32_is_with_a_sign_for_each_place() -> None:
    """CLAP's frames are stretched, its frequencies are not: they share what their frame is off."""
    frames = torch.randn(2, 1, 1001, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def stretched(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(values, (1024, 8), mode="bicubic", align_corners=True)

    exact, narrow = stretched(frames), stretched(frames.float()).double()

    def drawn(seed: int) -> torch.Tensor:
        return displaced(frames, exact, narrow, torch.Generator().manual_seed(seed))

    signs = (drawn(1) - exact) / (COORDINATES * (narrow - exact))
    told = (narrow - exact).abs() > 1e-9
    torch.testing.assert_close(signs[told].abs(), torch.ones_like(signs[told]), atol=1e-3, rtol=0)
    of_frames = torch.where(told, signs, torch.nan)
    assert bool((of_frames.nanmean((0, 1, 3)).abs() > 0.999).all())  # one for all of a frame
    assert abs(float(signs[told].mean())) < 0.15
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_a_floor_displaces_interpolations_and_an_exact_pass_does_not() -> None:
    frames = torch.randn(1, 1, 11, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    size = (16, 8)
    arithmetic = perturbation(Precision.F32, 1, 0, frozenset())
    with arithmetic, TrueFloat64():
        moved = torch.nn.functional.interpolate(frames, size, mode="bicubic", align_corners=True)
    with Exact(), TrueFloat64():
        kept = torch.nn.functional.interpolate(frames, size, mode="bicubic", align_corners=True)
    exact = torch.nn.functional.interpolate(frames, size, mode="bicubic", align_corners=True)
    assert torch.equal(kept, exact)
    off = (moved - exact).abs().max() / exact.abs().max()
    assert 2.0**-24 < off < 100 * 2.0**-24
