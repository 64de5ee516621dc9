"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assay.errors import UsageError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write beside the target and move into place, so that no reader ever meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        draft.chmod(0o644)
        draft.replace(path)
    except BaseException:
        draft.unlink()
        raise


@contextmanager
def published_folder(target: Path) -> Iterator[Path]:
    """A draft folder beside the target that takes its place when the block ends well.

    Where another process published the same content first, its folder is kept and the draft dropped.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield draft
        draft.chmod(0o755)
        try:
            draft.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: it is not there, or not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file.parent}: no {file.name}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not JSON ({error})") from error
