"""Vocabularies of the local test models, made here: the words of `base.WORDS`, and single characters for the rest."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

from assay.families.base import WORDS

CHARACTERS = string.ascii_lowercase + string.digits + ".,'"


def numbered(tokens: Iterable[str]) -> dict[str, int]:
    """Token to id, in order, each token once."""
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}


def wordpiece() -> dict[str, int]:
    """BERT's special tokens, the words, and characters with and without `##`."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    return numbered((*special, *WORDS, *CHARACTERS, *(f"##{character}" for character in CHARACTERS)))


def bytes_alphabet() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def merges(*, before: str = "", after: str = "") -> list[Any]:
    """BPE merges, pairs of tokens, that build every word from the left.

    `before` and `after` mark where a word begins or ends. (transformers declares pairs as strings; it takes pairs.)
    """
    found: dict[tuple[str, str], None] = {}
    for word in WORDS:
        characters = [*before, *word[:-1], word[-1] + after]
        left = characters[0]
        for right in characters[1:]:
            found[left, right] = None
            left += right
    return list(found)


def merged(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The tokens that merges make."""
    return [left + right for left, right in pairs]
