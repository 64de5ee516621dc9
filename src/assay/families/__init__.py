"""The rows of the matrix, one file each."""

from __future__ import annotations

from assay import registry
from assay.families.base import Family

ORDER = (
    "bert", "clip", "llama", "t5", "wav2vec2", "whisper", "xclip", "clap", "sentence-embeddings", "language-model",
)  # fmt: skip
"""The order of the rows; families of other packages follow, by name."""

_HELPERS = frozenset({"base", "buckets", "generation", "graphs", "module", "rates", "steps", "tokenizers"})


def names() -> tuple[str, ...]:
    """Every family's id, in the order of the matrix."""
    found = registry.sources("assay.families", "assay.families", _HELPERS)
    return (*(name for name in ORDER if name in found), *sorted(set(found) - set(ORDER)))


def load(name: str) -> Family:
    """The family of that id.

    Raises:
        UsageError: no such family.
    """
    family: Family = registry.load("family", name, registry.sources("assay.families", "assay.families", _HELPERS))
    return family
