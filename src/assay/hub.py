"""Checkpoints of the Hugging Face hub: the one place that reaches for the network, and only for an id it was given."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from assay.errors import UsageError

_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
FILES = ("*.json", "*.txt", "*.model", "*.jinja", "model.safetensors", "model-*.safetensors")
"""What is fetched: configurations, tokenizers, and the safetensors that transformers loads. No pickles, no code."""


def is_id(text: str) -> bool:
    """Whether this may be `org/name` or `org/name@revision`."""
    return _ID.fullmatch(text) is not None


def snapshot(text: str) -> tuple[Path, str, str]:
    """The folder of a repository in the hub's own cache, fetched if it is not there; `HF_HUB_OFFLINE` keeps it local.

    Args:
        text: `org/name` or `org/name@revision`: a branch, a tag or a commit.

    Returns:
        The folder, the repository's id, and the commit's hash.

    Raises:
        UsageError: there is no such repository or revision, or the hub cannot be reached.
    """
    repository, _, revision = text.partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise UsageError(f"{text}: no such folder; for the hub, huggingface_hub is not installed here") from None
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise UsageError(
            f"{text}: no such folder, and not to be had from the hub: {type(error).__name__}: {reason}"
        ) from error
    return folder, repository, folder.name
