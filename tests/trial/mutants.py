"""Faults that people really make, each injected into a test model: what the judge must see.

A fault is a function of a `Subject`; it changes the module, the inputs, the outputs or the cache, or raises
`NotApplicable` where the architecture has nothing of the kind.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from assay.backends.torch_eager import TorchDecoder, last_on_host
from assay.evidence.rounding import UNIT_ROUND_OFF
from assay.families.sentence_embeddings import Pooling, SentenceEmbeddings
from assay.schema import Precision
from tests.trial.lab import Outputs, Subject
from tests.trial.parts import NotApplicable, matrices, one_of, projection, settings, towers
from tests.trial.tf32 import Tf32

Fault = Callable[[Subject], None]


def untouched(subject: Subject) -> None:
    """No fault: whatever is killed for another reason than its fault would show here."""


# The checkpoint: other numbers than the ones that were asked for.


def random_weights(subject: Subject) -> None:
    """Every matrix drawn anew, as large as it was: a model that was initialised and not loaded."""
    for parameter in matrices(subject):
        drawn = torch.from_numpy(subject.rng.standard_normal(parameter.shape)).to(parameter)
        parameter.copy_(drawn * parameter.std() + parameter.mean())


def stale_tensor(subject: Subject) -> None:
    """One matrix with the numbers of another version: its own, in another order."""
    parameter = one_of(subject, matrices(subject))
    order = torch.from_numpy(subject.rng.permutation(parameter.numel()))
    parameter.copy_(parameter.flatten()[order].view(parameter.shape))


def drifted_tensor(subject: Subject) -> None:
    """One matrix slightly off, by 1 to 300 units of the precision: a checkpoint a few steps older."""
    parameter = one_of(subject, matrices(subject))
    off = UNIT_ROUND_OFF[subject.precision] * 10 ** subject.rng.uniform(0, 2.5)
    drawn = torch.from_numpy(subject.rng.standard_normal(parameter.shape)).to(parameter)
    parameter.mul_(1 + min(off, 0.5) * drawn)


def drifted_model(subject: Subject) -> None:
    """Every matrix slightly off, by 1 to 30 units of the precision."""
    off = UNIT_ROUND_OFF[subject.precision] * 10 ** subject.rng.uniform(0, 1.5)
    for parameter in matrices(subject):
        drawn = torch.from_numpy(subject.rng.standard_normal(parameter.shape)).to(parameter)
        parameter.mul_(1 + min(off, 0.5) * drawn)


def transposed_matrix(subject: Subject) -> None:
    """One square matrix the other way around."""
    square = [each for each in matrices(subject) if each.ndim == 2 and each.shape[0] == each.shape[1]]
    parameter = one_of(subject, square)
    parameter.copy_(parameter.T.clone())


def int8_weights(subject: Subject) -> None:
    """Every matrix rounded to 8 bits, one scale for each row."""
    for parameter in matrices(subject):
        scale = parameter.flatten(1).abs().amax(dim=1).clamp_min(1e-12).view(-1, *[1] * (parameter.ndim - 1)) / 127
        parameter.copy_((parameter / scale).round().clamp(-127, 127) * scale)


def bf16_weights(subject: Subject) -> None:
    """Every weight stored as bf16, computed as declared."""
    if subject.precision is not Precision.F32:
        raise NotApplicable
    for parameter in subject.module.parameters():
        parameter.copy_(parameter.to(torch.bfloat16).to(parameter))


def tf32_for_f32(subject: Subject) -> None:
    """Products of operands with ten bits of mantissa: what NVIDIA's tensor cores make of float32 where they may."""
    if subject.precision is not Precision.F32:
        raise NotApplicable
    subject.arithmetic = Tf32


# The export: another function than the model's.


def skip(layer: torch.nn.Module) -> torch.utils.hooks.RemovableHandle:
    """Have a layer hand its input on."""

    def same(_module: object, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return states if isinstance(output, torch.Tensor) else (states, *output[1:])

    return layer.register_forward_hook(same, with_kwargs=True)


def layer_skipped(subject: Subject) -> None:
    """One layer hands its input on."""
    skip(one_of(subject, [layer for tower in towers(subject) for layer in tower]))


def head_zeroed(subject: Subject) -> None:
    """One attention head gives nothing: a quarter of an output projection's inputs."""
    weight = projection(subject)
    weight[:, : max(1, weight.shape[1] // 4)] = 0


def heads_swapped(subject: Subject) -> None:
    """Two heads of one layer change places at the output projection."""
    weight = projection(subject)
    part = weight.shape[1] // 4
    if not part:
        raise NotApplicable
    weight[:, : 2 * part] = torch.cat((weight[:, part : 2 * part], weight[:, :part]), dim=1)


def attention_scale_missing(subject: Subject) -> None:
    """Scores are not divided by the square root of the head's width."""
    scaled = settings(subject, "Attention", "scaling", "scale")
    changed = [(module, name) for module, name in scaled if getattr(module, name) != 1]
    module, name = one_of(subject, changed)
    setattr(module, name, 1.0)


def wrong_epsilon(subject: Subject) -> None:
    """Every norm with 1e-3: another library's default."""
    for module, name in settings(subject, "Norm", "eps", "variance_epsilon"):
        setattr(module, name, 1e-3)


def other_epsilon(subject: Subject) -> None:
    """Every norm with 1e-5 where 1e-12 or 1e-6 is meant, or the other way around."""
    for module, name in settings(subject, "Norm", "eps", "variance_epsilon"):
        setattr(module, name, 1e-6 if getattr(module, name) == 1e-5 else 1e-5)


def other_gelu(subject: Subject) -> None:
    """The tanh formula for the exact GELU, or the other way around."""
    swapped = 0
    for owner in subject.module.modules():
        for name, child in list(owner.named_children()):
            if type(child).__name__ in ("GELUActivation", "GELU"):
                setattr(owner, name, torch.nn.GELU(approximate="tanh"))
            elif type(child).__name__ in ("NewGELUActivation", "QuickGELUActivation"):
                setattr(owner, name, torch.nn.GELU())
            else:
                continue
            swapped += 1
    if not swapped:
        raise NotApplicable


def final_norm_missing(subject: Subject) -> None:
    """The last norm of a tower is left out."""
    last = ("final_layer_norm", "layer_norm", "ln_f", "norm", "post_layernorm", "LayerNorm")
    owners = [
        (owner, name) for owner in subject.module.modules() for name, child in owner.named_children()
        if name in last and "Norm" in type(child).__name__
    ]  # fmt: skip
    owner, name = one_of(subject, owners)
    setattr(owner, name, torch.nn.Identity())


def cross_attention_dropped(subject: Subject) -> None:
    """A decoder that does not look at its source."""
    cross = [
        module for name, module in subject.module.named_modules()
        if name.rpartition(".")[2] in ("encoder_attn", "EncDecAttention", "cross_attn")
    ]  # fmt: skip
    if not cross:
        raise NotApplicable

    def nothing(_module: object, _inputs: object, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return torch.zeros_like(output)
        return (torch.zeros_like(output[0]), *output[1:])

    for module in cross:
        module.register_forward_hook(nothing)


def positions_off_by_one(subject: Subject) -> None:
    """Every table of learned positions read one place further."""
    tables = [
        parameter for name, parameter in subject.module.named_parameters()
        if "position" in name and name.endswith(".weight") and parameter.ndim == 2 and "bias" not in name
    ] + [parameter for name, parameter in subject.module.named_parameters() if name.endswith("wpe.weight")]  # fmt: skip
    if not tables:
        raise NotApplicable
    for table in tables:
        table.copy_(table.roll(-1, dims=0))


def mask_ignored(subject: Subject) -> None:
    """Padding is read as if it were text."""

    def ones(inputs: Outputs) -> Outputs:
        return {name: np.ones_like(array) if name == "attention_mask" else array for name, array in inputs.items()}

    if "attention_mask" not in subject.family.dynamic:
        raise NotApplicable
    subject.inputs = ones


def truncated_sequence(subject: Subject) -> None:
    """The last quarter of every text is not read."""
    if "attention_mask" not in subject.family.dynamic:
        raise NotApplicable

    def cut(inputs: Outputs) -> Outputs:
        if "attention_mask" not in inputs:
            return inputs
        mask = inputs["attention_mask"].copy()
        mask[:, mask.shape[1] - mask.shape[1] // 4 :] = 0
        return {**inputs, "attention_mask": mask}

    subject.inputs = cut


def cls_for_mean_pooling(subject: Subject) -> None:
    """The first token's vector in the place of the mean of all."""
    if subject.family.id != "sentence-embeddings":
        raise NotApplicable
    subject.module.family = SentenceEmbeddings(Pooling("cls"))


def unnormalised_embeddings(subject: Subject) -> None:
    """Embeddings of another length than one."""
    if not any("embeds" in name or "embedding" in name for name in subject.family.outputs):
        raise NotApplicable

    def longer(outputs: Outputs) -> Outputs:
        return {name: array * 1.7 if "embed" in name else array for name, array in outputs.items()}

    subject.outputs = longer


def wrong_sample_rate(subject: Subject) -> None:
    """Sound of 44.1 kHz read as 48 kHz."""
    if "input_values" not in subject.family.dynamic:
        raise NotApplicable

    def slower(inputs: Outputs) -> Outputs:
        if "input_values" not in inputs:
            return inputs
        sound = inputs["input_values"]
        places = np.arange(sound.shape[1]) * (44.1 / 48)
        rows = [np.interp(places, np.arange(sound.shape[1]), row) for row in sound]
        return {**inputs, "input_values": np.stack(rows).astype(sound.dtype)}

    subject.inputs = slower


def wrong_normalisation(subject: Subject) -> None:
    """Pixels, spectra or sound scaled by another mean and deviation."""
    raw = ("pixel_values", "input_features", "input_values")
    if not any(name in subject.family.dynamic for name in raw):
        raise NotApplicable

    def scaled(inputs: Outputs) -> Outputs:
        return {
            name: (array * np.float32(1.1) + np.float32(0.1)).astype(array.dtype) if name in raw else array
            for name, array in inputs.items()
        }

    subject.inputs = scaled


# The engine: the right function, served wrongly.


def batch_broadcast(subject: Subject) -> None:
    """Every row of a batch gets the first row's answer."""

    def first(outputs: Outputs) -> Outputs:
        return {name: np.broadcast_to(array[:1], array.shape).copy() for name, array in outputs.items()}

    subject.outputs = first


def wrong_element(subject: Subject) -> None:
    """One single number of every output is off, by 1 to 1,000 units of the precision of the output's size."""
    off = UNIT_ROUND_OFF[subject.precision] * 10 ** subject.rng.uniform(0, 3)
    place = subject.rng.random()

    def spoil(outputs: Outputs) -> Outputs:
        found = {}
        for name, array in outputs.items():
            spoilt = array.copy()
            rows = spoilt.reshape(-1, spoilt.shape[-1])  # in the first row, which is never padding
            rows[0, int(place * rows.shape[1])] += off * np.sqrt(np.mean(np.square(array, dtype=np.float64))) * 8
            found[name] = spoilt
        return found

    subject.outputs = spoil


class StaleCache(TorchDecoder):
    """Forgets every other step's keys and values."""

    def step(self, tokens: np.ndarray) -> Any:
        before = copy.deepcopy(self._cache)
        self._steps = getattr(self, "_steps", 0) + 1
        answer = super().step(tokens)
        if self._steps % 2:
            self._cache = before
            if "attention_mask" in self._inputs and self._target == "input_ids":
                self._inputs["attention_mask"] = self._inputs["attention_mask"][:, :-1]
        return answer


class NotReset(TorchDecoder):
    """Goes on with the cache of the sequence before, whatever `reset` says."""

    def reset(self) -> None:
        """Nothing is forgotten."""

    def prefill(self, inputs: Any) -> Any:
        old, mask = self._cache, self._inputs.get("attention_mask")
        placed = {name: self._place(array) for name, array in inputs.items()}
        if old is None or self._target != "input_ids" or len(mask) != len(placed["attention_mask"]):
            self._cache = None
            return super().prefill(inputs)
        with torch.inference_mode():
            placed["attention_mask"] = torch.cat((mask, placed["attention_mask"]), dim=1)
            self._inputs = placed
            return last_on_host(self._stepper.advance(old, placed, self._keep()))


class U8Cache(TorchDecoder):
    """Keeps keys and values in 8 bits, a scale for each token and head."""

    def prefill(self, inputs: Any) -> Any:
        answer = super().prefill(inputs)
        self._narrow()
        return answer

    def step(self, tokens: np.ndarray) -> Any:
        answer = super().step(tokens)
        self._narrow()
        return answer

    def _narrow(self) -> None:
        with torch.inference_mode():
            for tensor in _cached(self._cache):
                scale = tensor.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
                tensor.copy_((tensor / scale).round() * scale)


def stale_cache(subject: Subject) -> None:
    """See `StaleCache`."""
    decoder_of(subject, StaleCache)


def cache_not_reset(subject: Subject) -> None:
    """See `NotReset`."""
    if subject.family.graph != "decoder":
        raise NotApplicable
    decoder_of(subject, NotReset)


def u8_cache(subject: Subject) -> None:
    """See `U8Cache`."""
    decoder_of(subject, U8Cache)


FAULTS: tuple[Fault, ...] = (
    untouched, random_weights, stale_tensor, drifted_tensor, drifted_model, transposed_matrix, int8_weights,
    bf16_weights, tf32_for_f32,
    layer_skipped, head_zeroed, heads_swapped, attention_scale_missing, wrong_epsilon, other_epsilon, other_gelu,
    final_norm_missing, cross_attention_dropped, positions_off_by_one, mask_ignored, truncated_sequence,
    cls_for_mean_pooling, unnormalised_embeddings, wrong_sample_rate, wrong_normalisation,
    batch_broadcast, wrong_element, stale_cache, cache_not_reset, u8_cache,
)  # fmt: skip

CHOOSING = frozenset({
    stale_tensor, drifted_tensor, drifted_model, transposed_matrix, layer_skipped, head_zeroed, heads_swapped,
    attention_scale_missing, final_norm_missing, wrong_element,
})  # fmt: skip
"""Faults that choose where to strike, or how hard."""


def decoder_of(subject: Subject, decoder: type[TorchDecoder]) -> None:
    """Decode with this engine."""
    if subject.family.graph not in ("decoder", "encoder-decoder"):
        raise NotApplicable
    subject.decoder = decoder


def _cached(cache: Any) -> Iterator[torch.Tensor]:
    layers = getattr(cache, "self_attention_cache", cache).layers
    for layer in layers:
        yield layer.keys
        yield layer.values
