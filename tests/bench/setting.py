"""What a contestant is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from assay.schema import Workload

ASSAY = "assay"
"""The contestant that is assay's own engine; every other is a peer, by its name in `peers`."""


@dataclass(frozen=True)
class Setting:
    """One way to run one model on one workload.

    Attributes:
        contestant: `assay`, or a peer's name.
        backend: whose engine or artifact it is.
        checkpoint: the folder.
        artifact: what the backend's builder made of it, `Artifact` as plain data.
        config: the path of the configuration, as the family describes it.
        workload: what runs; with `new_tokens`, a prompt and as many tokens after it.
        seed: that of the inputs, the same for all that are compared.
    """

    contestant: str
    family: str
    backend: str
    checkpoint: str
    artifact: dict[str, Any]
    config: str
    workload: Workload
    seed: str

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self) | {"workload": self.workload.model_dump()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Setting:
        """What `to_json` made."""
        return cls(**content | {"workload": Workload(**content["workload"])})
