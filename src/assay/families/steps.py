"""Decoding of transformers' own models, a step at a time: what the torch columns run and the ONNX columns export.

A stepper advances a cache that it is handed. `ExportedStep` makes the cache explicit, keys and values as
inputs and outputs, so that another runtime can keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from assay.families.generation import KEEP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assay.families.generation import GeneratingFamily

Inputs = Mapping[str, torch.Tensor]


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Positions of tokens, (batch, length), counted from each row's first real one, wherever it is padded."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


class Stepper(Protocol):
    """Begins a sequence and advances it.

    `keep` are the last indices of the new tokens, those whose logits are wanted: (batch, len(keep), vocabulary).
    """

    def prefill(self, inputs: Inputs, keep: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """The cache of a source, where there is an encoder, and of a prompt; and the prompt's logits."""

    def advance(self, cache: Any, inputs: Inputs, keep: torch.Tensor) -> torch.Tensor:
        """Logits of new tokens, by all of which the cache grows.

        Args:
            cache: as `prefill` made it, and `advance` left it.
            inputs: the new tokens, and the attention mask of old and new; where there is an encoder, the source's.
            keep: see `Stepper`.
        """


class DecoderStepper:
    """A decoder alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def prefill(self, inputs: Inputs, keep: torch.Tensor) -> tuple[DynamicCache, torch.Tensor]:
        """See `Stepper`."""
        cache = DynamicCache()
        return cache, self.advance(cache, inputs, keep)

    def advance(self, cache: DynamicCache, inputs: Inputs, keep: torch.Tensor) -> torch.Tensor:
        """See `Stepper`."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        logits = self._model(
            input_ids=ids, attention_mask=mask, position_ids=positions(mask)[:, -ids.shape[1] :],
            past_key_values=cache, use_cache=True, logits_to_keep=keep,
        ).logits  # fmt: skip
        return logits[:, -keep.shape[0] :]  # a model that does not know `logits_to_keep` gives all


class CrossStepper:
    """A decoder that attends to an encoder's states, whose keys and values are computed once a sequence."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def prefill(self, inputs: Inputs, keep: torch.Tensor) -> tuple[EncoderDecoderCache, torch.Tensor]:
        """See `Stepper`; the pass over the prompt fills in what the source has in the cache."""
        cache = _empty()
        return cache, self._pass(cache, self._states(inputs), inputs)[:, -keep.shape[0] :]

    def advance(self, cache: EncoderDecoderCache, inputs: Inputs, keep: torch.Tensor) -> torch.Tensor:
        """See `Stepper`."""
        keys = cache.cross_attention_cache.layers[0].keys
        # Only the shape of the states counts: keys and values are there already.
        return self._pass(cache, keys.new_zeros((keys.shape[0], keys.shape[2], 1)), inputs)[:, -keep.shape[0] :]

    def source(self, inputs: Inputs) -> DynamicCache:
        """A source's keys and values alone. A pass over one token fills them in; what that token has is dropped."""
        cache, states = _empty(), self._states(inputs)
        start = torch.zeros((states.shape[0], 1), dtype=torch.int64, device=states.device)
        self._pass(cache, states, {"decoder_input_ids": start})
        return cache.cross_attention_cache

    def _states(self, inputs: Inputs) -> torch.Tensor:
        source = {name: tensor for name, tensor in inputs.items() if name != "decoder_input_ids"}
        states: torch.Tensor = self._model.get_encoder()(**source)[0]
        return states

    def _pass(self, cache: EncoderDecoderCache, states: torch.Tensor, inputs: Inputs) -> torch.Tensor:
        mask = {"attention_mask": inputs["attention_mask"]} if "attention_mask" in inputs else {}
        logits: torch.Tensor = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), past_key_values=cache, use_cache=True,
            decoder_input_ids=inputs["decoder_input_ids"], **mask,
        ).logits  # fmt: skip
        return logits


def _empty() -> EncoderDecoderCache:
    return EncoderDecoderCache(DynamicCache(), DynamicCache())


def _ready(own: DynamicCache, cross: DynamicCache) -> EncoderDecoderCache:
    cache = EncoderDecoderCache(own, cross)
    cache.is_updated = dict.fromkeys(range(len(cross.layers)), True)
    return cache


def stepper(family: GeneratingFamily, model: PreTrainedModel) -> Stepper:
    """The stepper that the family's kind of graph needs."""
    return DecoderStepper(model) if family.graph == "decoder" else CrossStepper(model)


def cache_size(cache: Any) -> int:
    """Bytes of the keys and values that grow with every token."""
    own = getattr(cache, "self_attention_cache", cache)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in own.layers)


class ExportedSource(torch.nn.Module):
    """The source in, every layer's cross-attention keys and values out: `cross_0_key`, `cross_0_value`, ..."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config  # transformers' exporter asks for it

    def forward(self, **source: torch.Tensor) -> dict[str, torch.Tensor]:
        """One encoding."""
        return dict(_named("cross", CrossStepper(self.model).source(source)))


class ExportedStep(torch.nn.Module):
    """New tokens and the cache in (`past_0_key`, ...), logits and the grown cache out (`present_0_key`, ...)."""

    def __init__(self, family: GeneratingFamily, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.family = family

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """One step; without `past`, the first."""
        own = _gathered("past", inputs)
        cross = _gathered("cross", inputs)
        cache = _ready(own, cross) if cross.layers else own
        length = inputs[self.family.target].shape[1]
        keep = inputs[KEEP] if KEEP in inputs else torch.arange(length)
        logits = stepper(self.family, self.model).advance(cache, inputs, keep)
        return {"logits": logits, **dict(_named("present", own))}


def _named(role: str, cache: DynamicCache) -> Iterator[tuple[str, torch.Tensor]]:
    for number, layer in enumerate(cache.layers):
        yield f"{role}_{number}_key", layer.keys
        yield f"{role}_{number}_value", layer.values


def _gathered(role: str, inputs: Inputs) -> DynamicCache:
    layers = sum(1 for name in inputs if name.startswith(f"{role}_")) // 2
    pairs = [(inputs[f"{role}_{number}_key"], inputs[f"{role}_{number}_value"]) for number in range(layers)]
    return DynamicCache(pairs) if pairs else DynamicCache()
