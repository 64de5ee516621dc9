"""The parts of an architecture that faults strike, found by what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.trial.lab import Subject


class NotApplicable(Exception):
    """This architecture has no such part."""


def matrices(subject: Subject) -> list[torch.nn.Parameter]:
    """Parameters of two axes and more, tables of embeddings included."""
    return [parameter for parameter in subject.module.parameters() if parameter.ndim >= 2]


def towers(subject: Subject) -> Iterator[torch.nn.ModuleList]:
    """Stacks of equal layers."""
    for name, module in subject.module.named_modules():
        stack = name.rpartition(".")[2] in ("layer", "layers", "block", "blocks", "h")
        if stack and isinstance(module, torch.nn.ModuleList) and len(module) > 1 and len(set(map(type, module))) == 1:
            yield module


def settings(subject: Subject, kind: str, *names: str) -> list[tuple[torch.nn.Module, str]]:
    """Modules of a kind, and which of these numbers each has.

    Raises:
        NotApplicable: none has one.
    """
    found = [
        (module, name) for module in subject.module.modules() for name in names
        if kind in type(module).__name__ and isinstance(getattr(module, name, None), float)
    ]  # fmt: skip
    if not found:
        raise NotApplicable
    return found


def projection(subject: Subject) -> torch.Tensor:
    """An attention's output projection, (width, heads x head width)."""
    names = ("out_proj.weight", "o_proj.weight", "attention.output.dense.weight", ".o.weight", "attn.c_proj.weight")
    found = [
        parameter.T if name.endswith("c_proj.weight") else parameter  # GPT-2 keeps it turned
        for name, parameter in subject.module.named_parameters() if name.endswith(names) and "message" not in name
    ]  # fmt: skip
    return one_of(subject, found)


def one_of(subject: Subject, choices: list[Any]) -> Any:
    """One of them, by the subject's generator."""
    if not choices:
        raise NotApplicable
    return choices[int(subject.rng.integers(len(choices)))]
