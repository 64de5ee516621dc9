"""Operations are those that torch counts, and a step reads the weights that it uses."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from assay import checkpoints, families
from assay.challenge import Challenges
from assay.evidence.operations import counted, decoding_work
from assay.evidence.reference import Reference
from assay.families.generation import GeneratingFamily
from assay.families.steps import stepper

GENERATING = [name for name in families.ORDER if isinstance(families.load(name), GeneratingFamily)]


def case(name: str) -> tuple[Reference, Challenges]:
    """A family's reference and challenges."""
    checkpoint = checkpoints.local(name)
    family = families.load(name)
    return Reference(family, checkpoint.path), Challenges(family, checkpoint.config(), "0a")


@pytest.mark.parametrize("name", families.ORDER)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    reference, challenges = case(name)
    inputs = challenges.timed(0)
    module = families.load(name).load(checkpoints.local(name).path, attention="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(**{key: torch.from_numpy(array) for key, array in inputs.items()})
    assert counted(reference, inputs)[1] == counter.get_total_flops() > 10**6


@pytest.mark.parametrize("name", GENERATING)
def test_a_step_reads_what_its_decoder_has(name: str) -> None:
    """All parameters but tables that rows are looked up in, and of an encoder-decoder what its encoder has."""
    reference, challenges = case(name)
    family = families.load(name)
    assert isinstance(family, GeneratingFamily)
    work = decoding_work(reference, family, challenges.decoded(0))
    model = families.load(name).load(checkpoints.local(name).path).model
    head = model.get_output_embeddings().weight
    decoder = model if family.graph == "decoder" else model.get_decoder()
    own = {id(each): each.numel() for each in (*decoder.parameters(), head)}
    tables = [each.weight for each in decoder.modules() if isinstance(each, torch.nn.Embedding)]
    looked_up = sum(own[id(each)] for each in tables if each is not head and id(each) in own)
    cross = sum(each.numel() for key, each in decoder.named_parameters() if _source(key))
    least = sum(own.values()) - looked_up - cross
    # Beside them: rows of tables, biases of positions, and the cache.
    assert least <= work.read < 1.25 * sum(own.values())
    single = sum(each.numel() for each in decoder.parameters() if each.ndim == 1)
    assert least - single <= work.matrices < work.read - single / 2


def _source(name: str) -> bool:
    """Projections of the source to keys and values, which a step does not run again."""
    return any(
        part in name for part in ("EncDecAttention.k", "EncDecAttention.v", "encoder_attn.k_", "encoder_attn.v_")
    )


@pytest.mark.parametrize("name", GENERATING)
def test_a_prefill_takes_what_a_pass_over_the_prompt_takes(name: str) -> None:
    """But for logits, of which a prefill needs those of the last position; and a source is encoded once."""
    reference, challenges = case(name)
    family = families.load(name)
    assert isinstance(family, GeneratingFamily)
    prompt = challenges.decoded(0)
    work = decoding_work(reference, family, prompt)
    whole = counted(reference, prompt)[1]
    module = families.load(name).load(checkpoints.local(name).path, attention="eager")
    inputs = {key: torch.from_numpy(array) for key, array in prompt.items()}
    length = inputs[family.target].shape[1]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        stepper(family, module.model).prefill(inputs, torch.tensor([length - 1]))
    assert work.prefill == counter.get_total_flops()
    assert 0.5 * whole < work.prefill <= 1.05 * whole
