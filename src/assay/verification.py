"""Whether attestations hold: signature, digests, and all that a statement says of its evidence, concluded anew.

A statement holds if it is, field for field, what assay writes for the cell in it. `docs/attestation.md` says what
that proves, and what not.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import attestation, report_files, signing
from assay.attestation import EVIDENCE, PREDICATE, RESULTS, STATEMENT
from assay.errors import UsageError, counted
from assay.matrix import Matrix, MatrixCell
from assay.report import grid, units
from assay.report.names import names


class Refused(Exception):
    """What does not hold of a statement, a line each."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = problems


@dataclass(frozen=True)
class Checked:
    """A line of a bundle: the cell if its statement holds, or else the problems.

    Attributes:
        line: counted from one.
        signed_by: the id of the key that signed it.
    """

    line: int
    cell: MatrixCell | None = None
    signed_by: str | None = None
    problems: tuple[str, ...] = ()


def verify(path: Path, key: Path | None) -> list[Checked]:
    """Whether each statement of a bundle holds, and with a key whether that signed it.

    Raises:
        UsageError: the file or the key cannot be read, no line is a statement, one is signed and there is no key.
    """
    public = signing.public_key(key) if key else None
    checked = [_checked(number, line, public, path) for number, line in _lines(path)]
    if not checked:
        raise UsageError(f"{path}: is empty")
    return checked


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Numbered lines, parsed, or why they cannot be.

    Raises:
        UsageError: none of them is a statement or an envelope.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text, so no attestation") from error
    parsed = [(number, _parsed(line)) for number, line in enumerate(lines, 1) if line.strip()]
    if parsed and all(isinstance(found, str) for _, found in parsed):
        number, why = parsed[0]
        raise UsageError(f"{path}: no attestation in it; line {number} {why}")
    yield from parsed


def _parsed(line: str) -> dict[str, Any] | str:
    try:
        found = _loads(line)
    except Refused as error:
        return error.problems[0]
    known = isinstance(found, dict) and not found.keys().isdisjoint(("_type", "payloadType"))
    return found if known else "is no in-toto statement, and no envelope of one"


def _checked(number: int, found: dict[str, Any] | str, public: signing.PublicKey | None, path: Path) -> Checked:
    if isinstance(found, str):
        return Checked(number, problems=(found,))
    if public is None and "payloadType" in found:
        raise UsageError(f"{path}: line {number} is signed; --key takes the public key of who signed it")
    try:
        return Checked(number, _attested(_opened(found, public)), public.id if public else None)
    except Refused as error:
        return Checked(number, problems=error.problems)


def _opened(found: dict[str, Any], public: signing.PublicKey | None) -> Any:
    """A statement, out of its envelope where there should be one."""
    if public is None:
        return found
    if "payloadType" not in found:
        raise Refused("is not signed, and --key asks for a signature")
    try:
        return _loads(public.open(found))
    except signing.Untrusted as error:
        raise Refused(str(error)) from error


def _attested(found: Any) -> MatrixCell:
    """The cell of a statement that holds."""
    if not isinstance(found, dict):
        raise Refused("is no in-toto statement")
    for name, wanted in (("_type", STATEMENT), ("predicateType", PREDICATE)):
        if found.get(name) != wanted:
            raise Refused(f"{name}: {found.get(name)!r} is not {wanted}")
    cell = _cell(_content(found))
    if why := attestation.unattestable(cell):
        raise Refused(f"{EVIDENCE}: the cell is {why}")
    if problems := list(_differences(attestation.statement(cell), found)):
        raise Refused(*problems)
    return cell


def _content(found: Mapping[str, Any]) -> bytes:
    """The evidence, of which the digest is right."""
    try:
        (descriptor,) = (each for each in found["predicate"]["configuration"] if each.get("name") == EVIDENCE)
        content = base64.b64decode(descriptor["content"], validate=True)
        digest = descriptor["digest"]["sha256"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"predicate.configuration: holds no {EVIDENCE} that can be read") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise Refused(f"{EVIDENCE}: its SHA-256 is not that of its content")
    return content


def _cell(content: bytes) -> MatrixCell:
    try:
        matrix = report_files.parse(_loads(content), Matrix)
    except report_files.Unreadable as error:
        raise Refused(f"{EVIDENCE}: {error}") from error
    if len(matrix.cells) != 1:
        raise Refused(f"{EVIDENCE}: holds {len(matrix.cells)} cells, not one")
    (cell,) = matrix.cells
    if content != attestation.content(cell):
        raise Refused(f"{EVIDENCE}: is not written as assay writes it: other keys, another order, or white space")
    return cell


def _differences(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where a statement is not what follows from its evidence."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in dict.fromkeys((*wanted, *found)):
            where = f"{path}.{name}".lstrip(".")
            if name not in found:
                yield f"{where}: is missing"
            elif name not in wanted:
                yield f"{where}: is not what assay writes"
            else:
                yield from _differences(wanted[name], found[name], where)
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, pair in enumerate(zip(wanted, found, strict=True)):
            yield from _differences(*pair, f"{path}[{index}]")
    elif wanted != found:
        yield f"{path}: {_shown(found)}, but {_shown(wanted)} follows from the evidence"


def _shown(value: Any, most: int = 60) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _loads(text: str | bytes) -> Any:
    """JSON in which no key is there twice: one reader would take the first and another the last."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode(), object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise Refused(f"is not JSON, or was cut off: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"is not JSON that can be read: {error}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def listing(checked: Sequence[Checked]) -> str:
    """A line for each statement, and how many hold."""
    cells = [each.cell for each in checked if each.cell]
    named = iter(names(cells, device=False))
    lines = [_verified(each.cell, next(named)) if each.cell else _refused(each) for each in checked]
    keys = {each.signed_by for each in checked if each.signed_by}
    signed = f"signed by {', '.join(sorted(keys))}" if keys else "not signed, so that nobody vouches for them"
    said = [f"{counted(len(cells), 'statement')} verified, {signed}"] if cells else []
    said += [f"{len(checked) - len(cells)} refused"] if len(cells) < len(checked) else []
    return "\n".join([*lines, "; ".join(said)])


def _verified(cell: MatrixCell, name: str) -> str:
    assert cell.checkpoint
    tests = ", ".join(
        f"{len(found)} {what.removesuffix('Tests')}" for what, found in attestation.tests(cell).items() if found
    )
    weights = units.plain(f"{units.name(cell.checkpoint)} {units.weights(cell.checkpoint)}")
    return f"verified {grid.GLYPHS[cell.status]} {cell.status} {name}: {RESULTS[cell.status]} for {weights}, {tests}"


def _refused(checked: Checked) -> str:
    first, *more = checked.problems
    return f"refused  line {checked.line}: {units.plain(first)}" + (f" (and {len(more)} more)" if more else "")


def to_json(checked: Iterable[Checked]) -> str:
    """The same for programs, with every problem."""
    return json.dumps([{"line": each.line, "verified": each.cell is not None, **_about(each)} for each in checked],
                      indent=1)  # fmt: skip


def _about(checked: Checked) -> dict[str, Any]:
    cell = checked.cell
    if cell is None:
        return {"problems": list(checked.problems)}
    return {
        "signed_by": checked.signed_by, "family": cell.family, "backend": cell.backend, "size": cell.size,
        "precision": str(cell.precision), "device": cell.device, "status": str(cell.status), "reason": cell.reason,
        "result": RESULTS[cell.status], "checkpoint": cell.checkpoint.model_dump() if cell.checkpoint else None,
    }  # fmt: skip
