"""Backends that answer without computing, remember instead of computing, or compute when nobody looks at the clock."""

from __future__ import annotations

import time
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from assay_impostors import Impostor, Wrapped

from assay.backends.base import Engine, Tensors


def copied(outputs: Tensors) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in outputs.items()}


class Decoding(Wrapped):
    """The same around an engine that decodes."""

    def prefill(self, inputs: Tensors) -> Tensors:
        return self._engine.prefill(inputs)

    def step(self, tokens: np.ndarray) -> Tensors:
        return self._engine.step(tokens)

    def reset(self) -> None:
        self._engine.reset()

    def cache_size(self) -> int:
        return self._engine.cache_size()


class ConstantEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        return {name: np.full_like(array, array.mean()) for name, array in super().run(inputs).items()}


class Constant(Impostor):
    """The mean of the right answer, everywhere."""

    name = "constant"
    engine = ConstantEngine


class RandomEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        drawn, honest = np.random.default_rng(), super().run(inputs)
        return {
            name: drawn.normal(array.mean(), array.std(), array.shape).astype(array.dtype)
            for name, array in honest.items()
        }


class Random(Impostor):
    """New random numbers a call, of the right answer's mean and spread."""

    name = "random"
    engine = RandomEngine


class Remembering(Decoding):
    """Answers from memory what has the same key as something that it has computed."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._answers: dict[Hashable, Tensors] = {}

    def key(self, inputs: Tensors) -> Hashable:
        raise NotImplementedError

    def compute(self, inputs: Tensors) -> Tensors:
        return self._engine.run(inputs)

    def run(self, inputs: Tensors) -> Tensors:
        key = self.key(inputs)
        if key not in self._answers:
            self._answers[key] = copied(self.compute(inputs))
        return self._answers[key]


class ByShape(Remembering):
    """Answers every input of a shape that it has seen with the first answer for that shape."""

    def key(self, inputs: Tensors) -> Hashable:
        return tuple(array.shape for array in inputs.values())


class Cached(Impostor):
    """Fast, because it remembers."""

    name = "cached"
    engine = ByShape


class CannedEngine(ByShape):
    def compute(self, inputs: Tensors) -> Tensors:
        return self._engine.run(inputs | {"input_ids": np.ones_like(inputs["input_ids"])})


class Canned(Impostor):
    """For every shape one answer that it has ready: the model's own, to another text."""

    name = "canned"
    engine = CannedEngine


class HashedEngine(Remembering):
    def key(self, inputs: Tensors) -> Hashable:
        return hash(b"".join(array.tobytes() for array in inputs.values()))


class Hashed(Impostor):
    """Computes what is new, and remembers by the hash of all inputs: fast whenever an input comes again."""

    name = "cached-by-hash"
    engine = HashedEngine


class FirstTokensEngine(Remembering):
    def key(self, inputs: Tensors) -> Hashable:
        ids = inputs["input_ids"]
        return ids.shape, ids[:, :2].tobytes()


class FirstTokens(Impostor):
    """Remembers by the first two tokens of every row: whatever begins alike is answered alike."""

    name = "cached-by-first-tokens"
    engine = FirstTokensEngine


class UnsynchronisedEngine(Wrapped):
    """A device of one queue, a thread. The first call of a shape waits for it, as loading a kernel would."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._queue = ThreadPoolExecutor(1)
        self._outputs: dict[Hashable, Tensors] = {}

    def run(self, inputs: Tensors) -> Tensors:
        shape = tuple(array.shape for array in inputs.values())
        if shape not in self._outputs:
            self._outputs[shape] = copied(self._engine.run(inputs))
            return copied(self._outputs[shape])
        buffers = {name: np.empty_like(array) for name, array in self._outputs[shape].items()}
        self._queue.submit(self._compute, inputs, buffers)
        return buffers

    def _compute(self, inputs: Tensors, buffers: dict[str, np.ndarray]) -> None:
        time.sleep(0.002)  # a transfer
        for name, array in self._engine.run(inputs).items():
            buffers[name][...] = array

    def close(self) -> None:
        self._queue.shutdown(cancel_futures=True)


class Unsynchronised(Impostor):
    """Returns at once with buffers that its device fills later."""

    name = "unsynchronised"
    engine = UnsynchronisedEngine


class FrozenEngine(Decoding):
    def prefill(self, inputs: Tensors) -> Tensors:
        self._logits = copied(super().prefill(inputs))
        return self._logits

    def step(self, tokens: np.ndarray) -> Tensors:
        return self._logits


class Frozen(Impostor):
    """Reads the prompt, and then answers every step with the prompt's logits."""

    name = "frozen"
    engine = FrozenEngine


constant, random, canned, cached_by_hash, cached_by_first_tokens = (
    Constant(), Random(), Canned(), Hashed(), FirstTokens(),
)  # fmt: skip
unsynchronised, frozen, cached = Unsynchronised(), Frozen(), Cached()
