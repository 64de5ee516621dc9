"""Challenges: inputs drawn from a seed that nobody knew before the run, made again wherever they are needed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from assay.families.base import Config, Family, accepted
from assay.families.generation import GeneratingFamily
from assay.schema import Workload


def draw_seed() -> str:
    """128 bits from the operating system, in hexadecimal."""
    return secrets.token_hex(16)


def generator(seed: str, *path: str | int) -> np.random.Generator:
    """The generator of one input: Philox keyed by the seed and a path such as `("timed", 17)`."""
    text = "/".join((seed, *map(str, path)))
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@dataclass(frozen=True)
class Alone:
    """One row of a padded batch by itself.

    Attributes:
        workload: the batch's name.
        row: which of its rows.
        kept: which of the row's positions are no padding, bool of shape (length,).
        inputs: the row, batch 1, as long as what is kept.
    """

    workload: str
    row: int
    kept: np.ndarray
    inputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Challenges:
    """All inputs of a cell, from its family, its checkpoint's configuration and one seed."""

    family: Family
    config: Config
    seed: str

    def shapes(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """The judged workloads: name and inputs."""
        for workload in self.family.challenges:
            yield workload.name, self._inputs(workload, workload.name)

    def of_other_weights(self) -> tuple[str, dict[str, np.ndarray]]:
        """Name and inputs of the judged workload that runs with other weights too: the first of several rows."""
        workload = next(each for each in self.family.challenges if each.batch > 1)
        return workload.name, self._inputs(workload, workload.name)

    def permuted(self) -> tuple[str, dict[str, np.ndarray]]:
        """The name of a judged workload of several rows, and its inputs with all rows in the reverse order."""
        workload = self.family.challenges[-1]
        inputs = self._inputs(workload, workload.name)
        return workload.name, {name: np.ascontiguousarray(array[::-1]) for name, array in inputs.items()}

    def alone(self) -> Alone | None:
        """The most padded row of a judged workload, without its padding; None where no input is a mask."""
        workload = next((each for each in self.family.challenges if each.padded), None)
        inputs = self._inputs(workload, workload.name) if workload else {}
        mask = inputs.get("attention_mask")
        if workload is None or mask is None:
            return None
        row = int(np.argmin(mask.sum(axis=1)))
        kept = mask[row] == 1
        dynamic = self.family.dynamic
        short = {
            name: array[row : row + 1, kept] if dynamic[name].get(1) == dynamic["attention_mask"][1] else array[[row]]
            for name, array in inputs.items()
        }
        return Alone(workload.name, row, kept, short)

    def timed(self, number: int) -> dict[str, np.ndarray]:
        """Inputs of call `number` of the timed loop."""
        return self._inputs(self.family.measured, "timed", number)

    def repeated(self, number: int) -> dict[str, np.ndarray]:
        """Inputs of pair `number` of the calls that are made twice."""
        return self._inputs(self.family.measured, "repeated", number)

    def larger(self, batch: int, number: int) -> dict[str, np.ndarray]:
        """Inputs of the timed workload in another batch."""
        return self._inputs(self.family.measured.model_copy(update={"batch": batch}), "larger", batch, number)

    def longer(self, workload: Workload, number: int) -> dict[str, np.ndarray]:
        """Inputs of the timed workload at another length."""
        return self._inputs(workload, "longer", workload.length, str(workload.seconds), number)

    def traced(self) -> dict[str, np.ndarray]:
        """Inputs of the traced call."""
        return self._inputs(self.family.measured, "traced")

    def forced(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """For a family that generates: a prompt, and the tokens that are forced upon the decoder after it."""
        family = self._generating()
        tokens = family.tokens(self.config, family.forced, generator(self.seed, "forced", "tokens"))
        return self._prompt(family.forced, "forced"), tokens

    def greedy(self) -> dict[str, np.ndarray]:
        """The prompt of a sequence that the model goes on with by itself."""
        return self._prompt(self._generating().forced, "greedy")

    def decoded(self, number: int) -> dict[str, np.ndarray]:
        """The prompt of timed sequence `number`."""
        return self._prompt(self._generating().decoded, "decoded", number)

    def prompted(self, workload: Workload, number: int) -> dict[str, np.ndarray]:
        """A prompt of the workload that is decoded, in another batch."""
        return self._prompt(workload, "prompted", workload.batch, number, workload.new_tokens)

    def prefilled(self, number: int) -> dict[str, np.ndarray]:
        """The prompt of pair `number` of the prefills that are made twice."""
        return self._prompt(self._generating().decoded, "prefilled", number)

    def _prompt(self, workload: Workload, *path: str | int) -> dict[str, np.ndarray]:
        return self._generating().prompt(self.config, workload, generator(self.seed, *path))

    def _generating(self) -> GeneratingFamily:
        assert isinstance(self.family, GeneratingFamily)
        return self.family

    def _inputs(self, workload: Workload, *path: str | int) -> dict[str, np.ndarray]:
        return accepted(self.config, self.family.inputs(self.config, workload, generator(self.seed, *path)))
