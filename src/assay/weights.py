"""Discriminating weights for local test models and twins: the same bytes in every environment.

transformers' own initialisation makes tiny models blind: zeroing an attention head of BERT moves the
output by 2e-4, less than bf16 rounding does. Here every matrix keeps the size of what passes through
it (GAIN / sqrt(fan in), as in He et al. 2015), embeddings have unit variance, norm weights 1 +- 0.1
and biases up to 0.1, so that every head and every layer shows.

The numbers are the raw bits of a counter-based generator (Philox, Salmon et al. 2011), keyed by seed
and tensor name, scaled with one exact conversion and one multiplication: no library's `normal()`,
whose algorithm and rounding differ between versions.
"""

from __future__ import annotations

import copy
import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GAIN = 1.5
"""Makes up for what activations take (1.53 for GELU, 1.41 for ReLU) and keeps attention neither flat nor one-hot."""
LOG_SCALE = 2.6592
"""The temperature of dual encoders, ln(1 / 0.07): what CLIP training starts from."""


def local_weights(model: torch.nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Weights for every tensor of the model's state dict, tied ones once.

    Args:
        model: on the meta device, for names, shapes and kinds of modules; it is not changed.
        seed: another seed, other weights.

    Returns:
        Contiguous arrays by name: float32; integer buffers as the model makes them.
    """
    weights: dict[str, np.ndarray] = {}
    seen: set[int] = set()
    aliases = getattr(model, "all_tied_weights_keys", {})
    owners = dict(model.named_modules())
    state = model.state_dict(keep_vars=True)
    for name, tensor in sorted(state.items(), key=lambda item: (item[0] in aliases, item[0])):
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        path, _, parameter = name.rpartition(".")
        if not tensor.is_floating_point():
            weights[name] = _integers(model, owners[path], parameter)
            continue
        shape, parent = tuple(tensor.shape), owners[path.rpartition(".")[0]]
        weights[name] = uniform(seed, name, shape, *_distribution(owners[path], parent, parameter, shape))
    return weights


def uniform(seed: int, name: str, shape: tuple[int, ...], centre: float, spread: float) -> np.ndarray:
    """Float32 numbers, uniform in centre +- spread, from the raw bits of Philox keyed by (seed, SHA-256 of name)."""
    count = math.prod(shape)
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = np.random.Philox(key=int.from_bytes(digest[:16], "little"))
    bits = generator.random_raw((count + 1) // 2).astype("<u8").view("<u4")[:count]
    # An odd integer below 2**24 in size over 2**24: exact in float32, symmetric, never 0.
    unit = ((bits >> np.uint32(8)).astype(np.int32) * 2 + (1 - 2**24)).astype(np.float32) / np.float32(2**24)
    return (unit * np.float32(spread) + np.float32(centre)).reshape(shape)


def _integers(model: Any, owner: torch.nn.Module, buffer: str) -> np.ndarray:
    """An integer buffer (a counter, an index of positions) as the model itself makes it: it is no weight."""
    real = copy.deepcopy(owner).to_empty(device="cpu")
    numbers: torch.Tensor = real.get_buffer(buffer).zero_()
    model._init_weights(real)
    copied: np.ndarray = numbers.numpy().copy()
    return copied


def _distribution(owner: Any, parent: Any, parameter: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and half width of the uniform distribution of a module's tensor."""
    kind = type(owner).__name__
    if not shape:
        return LOG_SCALE, 0.1
    if parameter.endswith("bias") or parameter == "running_mean":
        return 0.0, 0.1
    if parameter in {"running_var", "alpha"} or (parameter == "weight" and "Norm" in kind):
        return 1.0, 0.1
    if parameter == "original0":  # weight normalisation: the length of each slice of `original1`
        directions = owner.original1.shape
        return GAIN * math.sqrt(directions[0] / directions[2]), 0.1
    if kind == "Embedding" or "embedding" in parameter.lower() or len(shape) == 1 or parameter.endswith("_table"):
        return 0.0, math.sqrt(3)
    fan_in = shape[0] if inputs_first(owner, parameter) else math.prod(shape[1:])
    gain = GAIN
    if type(parent).__name__ == "T5Attention" and owner is parent.q:
        gain /= math.sqrt(parent.key_value_proj_dim)  # T5 leaves the scale of attention to its queries
    return 0.0, math.sqrt(3) * gain / math.sqrt(fan_in)


def inputs_first(owner: Any, parameter: str) -> bool:
    """Whether a module's matrix is (in, out), as GPT-2's Conv1D and bare matrices `x @ W` are; others are (out, in)."""
    return type(owner).__name__ == "Conv1D" or parameter not in ("weight", "original1", "in_proj_weight")
