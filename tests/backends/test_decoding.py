"""Decoding: the runtime's cache gives what a pass without one gives, and greedy tokens are those of `generate`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.backends.test_backends import COLUMNS, no_phase
from transformers import GenerationMixin

from assay import backends, checkpoints, families
from assay.backends.base import Engine
from assay.backends.torch_eager import TorchDecoder
from assay.challenge import Challenges
from assay.decoding import decode
from assay.families.generation import GeneratingFamily, grown
from assay.schema import Precision

GENERATING = [name for name in families.ORDER if isinstance(families.load(name), GeneratingFamily)]
NEW = 32


@pytest.fixture(scope="module", params=GENERATING)
def challenges(request: pytest.FixtureRequest) -> Challenges:
    """A family's local test model, and inputs for it."""
    checkpoint = checkpoints.local(request.param)
    return Challenges(families.load(request.param), checkpoint.config(), "0d")


@pytest.fixture(scope="module", params=COLUMNS)
def engine(request: pytest.FixtureRequest, challenges: Challenges) -> Iterator[Engine]:
    """An engine of each CPU column for each family."""
    backend = backends.load(request.param)
    artifact = backend.build(checkpoints.local(challenges.family.id), precision=Precision.F32)
    device = backend.devices()[0]
    with backend.open(artifact, device=device, precision=Precision.F32, phase=no_phase) as opened:
        yield opened


def generating(challenges: Challenges) -> GeneratingFamily:
    family = challenges.family
    assert isinstance(family, GeneratingFamily)
    return family


def test_there_are_four() -> None:
    assert GENERATING == ["llama", "t5", "whisper", "language-model"]


def test_greedy_tokens_are_those_of_generate(engine: Engine, challenges: Challenges) -> None:
    family, prompt = generating(challenges), challenges.greedy()
    found = decode(engine, prompt, NEW).tokens
    model = family.load(checkpoints.local(family.id).path).model
    assert isinstance(model, torch.nn.Module)
    model.generation_config.eos_token_id = None  # a random model ends anywhere
    tensors = {name: torch.from_numpy(array) for name, array in prompt.items()}
    # Whisper's own `generate` cuts, prompts and suppresses around the one that all models share.
    generated = GenerationMixin.generate(
        model, **tensors, do_sample=False, max_new_tokens=NEW, use_cache=True, pad_token_id=0
    )
    np.testing.assert_array_equal(found, generated[:, -NEW:].numpy())


def test_steps_give_what_one_pass_without_a_cache_gives(engine: Engine, challenges: Challenges) -> None:
    family = generating(challenges)
    prompt, tokens = challenges.forced()
    module = family.load(checkpoints.local(family.id).path)
    whole = family.extended(prompt, tokens)
    with torch.no_grad():
        expected = module(**{name: torch.from_numpy(array) for name, array in whole.items()})["logits"].numpy()
    start = prompt[family.target].shape[1] - 1
    first, again = (decode(engine, prompt, tokens.shape[1], tokens).logits for _ in range(2))
    # Two honest f32 runs differ by 1e-6 of the scale, which is a few units (docs/judgement.md); a stale cache by 1.
    assert np.abs(first - expected[:, start:]).max() < 1e-3
    np.testing.assert_array_equal(again, first)


def test_the_cache_grows_by_keys_and_values_of_every_layer(engine: Engine, challenges: Challenges) -> None:
    prompt, tokens = challenges.forced()
    sizes = {
        "llama": 2 * 2 * 16,  # layers, key heads (two query heads share one), head size
        "t5": 2 * 4 * 16, "whisper": 2 * 4 * 16, "language-model": 2 * 4 * 16,
    }  # fmt: skip
    found = decode(engine, prompt, tokens.shape[1], tokens).cache
    assert found == 2 * 4 * sizes[challenges.family.id]  # keys and values, four bytes a number


@pytest.mark.parametrize("name", GENERATING)
def test_the_first_token_takes_torch_one_pass_of_the_decoder(name: str) -> None:
    """The source's keys and values come on the way, as in `generate`; a pass for them alone would be timed too."""
    family, checkpoint, backend = families.load(name), checkpoints.local(name), backends.load("cpu")
    artifact = backend.build(checkpoint, precision=Precision.F32)
    challenges = Challenges(family, checkpoint.config(), "0d")
    passes: list[object] = []
    device = backend.devices()[0]
    with backend.open(artifact, device=device, precision=Precision.F32, phase=no_phase) as opened:
        assert isinstance(opened, TorchDecoder)
        opened._module.model.get_decoder().register_forward_hook(lambda *_: passes.append(None))
        opened.prefill(challenges.greedy())
        assert len(passes) == 1
        opened.step(np.zeros(3, np.int64))
        assert len(passes) == 2


def test_padding_on_the_left_does_not_matter(challenges: Challenges) -> None:
    family = generating(challenges)
    if family.target != "input_ids":
        assert not any("decoder_attention_mask" in name for name in family.dynamic)
        return
    prompt, tokens = challenges.forced()
    assert 0 in prompt["attention_mask"][:, 0] and (prompt["attention_mask"][:, -1] == 1).all()
    module = family.load(checkpoints.local(family.id).path)
    row = int(np.argmin(prompt["attention_mask"].sum(axis=1)))
    real = int(prompt["attention_mask"][row].sum())
    alone = {name: array[row : row + 1, -real:] for name, array in prompt.items()}
    found = []
    for each, forced in ((prompt, tokens), (alone, tokens[row : row + 1])):
        with torch.no_grad():
            whole = family.extended(each, forced)
            logits = module(**{name: torch.from_numpy(array) for name, array in whole.items()})["logits"]
        found.append(logits[row if len(logits) > 1 else 0, -NEW:].numpy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_a_mask_grows_with_ones() -> None:
    np.testing.assert_array_equal(grown(np.array([[0, 1]]), 2), [[0, 1, 1, 1]])
