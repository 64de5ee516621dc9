"""`assay verify`: what holds, and that nothing else does."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from assay.attestation import RESULTS, statement, unattestable
from assay.cli import main
from assay.errors import UsageError
from assay.matrix import MatrixCell
from assay.schema import Status
from assay.session_report import SessionReport
from assay.signing import PrivateKey, private_key
from assay.verification import Checked, verify
from tests import strategies as make
from tests.test_attestation import CELLS, MATRIX, merged
from tests.test_signing import KEYS, written

ALL = {**CELLS, Status.FAILED: merged(make.failed(known=True))}
REAL, MOCK = ALL[Status.REAL], ALL[Status.MOCK]
REAL_LINE = json.dumps(statement(REAL), separators=(",", ":"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def keys(folder: Path) -> tuple[PrivateKey, Path]:
    private, public = written(KEYS["ed25519"][0], folder)
    return private_key(private), public


def checked(folder: Path, *found: Any, key: Path | None = None) -> list[Checked]:
    """What is said of a bundle of these lines."""
    path = folder / "bundle.intoto.jsonl"
    lines = [each if isinstance(each, str) else json.dumps(each) for each in found]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return verify(path, key)


def problems(folder: Path, found: Any, key: Path | None = None) -> tuple[str, ...]:
    """What does not hold of one line."""
    (each,) = checked(folder, found, key=key)
    assert (each.cell is None) == bool(each.problems)
    return each.problems


def holds(path: Path, key: Path | None = None) -> bool:
    """Whether a file is a bundle of which all holds."""
    try:
        return all(each.cell for each in verify(path, key))
    except UsageError:
        return False


def evidence(found: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in found["predicate"]["configuration"] if each["name"] == "evidence")


def with_evidence(content: bytes, cell: MatrixCell = REAL) -> dict[str, Any]:
    """A cell's statement around other evidence, with its right digest."""
    found = statement(cell)
    digest = {"sha256": hashlib.sha256(content).hexdigest()}
    evidence(found).update(content=base64.standard_b64encode(content).decode(), digest=digest)
    return found


@pytest.mark.parametrize("cell", ALL.values(), ids=map(str, ALL))
def test_what_assay_attests_holds(cell: MatrixCell, folder: Path, keys: tuple[PrivateKey, Path]) -> None:
    private, public = keys
    found = statement(cell)
    (plain,) = checked(folder, found)
    (signed,) = checked(folder, private.seal(json.dumps(found).encode()), key=public)
    assert plain.cell == signed.cell == cell
    assert plain.signed_by is None and signed.signed_by


def test_every_result_is_among_them() -> None:
    assert set(ALL) == set(RESULTS)


@given(st.lists(make.reports(), max_size=2))
def test_what_assay_attests_of_any_matrix_holds(folder: Path, reports: list[SessionReport]) -> None:
    cells = [cell for cell in make.matrix(*reports).cells if not unattestable(cell)]
    assume(cells)
    assert [each.cell for each in checked(folder, *map(statement, cells))] == cells


# Nothing else holds


def places(value: Any, *path: str | int) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in JSON, containers included."""
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, *path, key)


def put(value: Any, path: tuple[str | int, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy in which the container of that place was changed at its key."""
    found = copy.deepcopy(value)
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    change(inner, path[-1])
    return found


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}) | st.sampled_from(
    ["PASSED", "WARNED", "FAILED", "REAL", "MOCK", "evidence", "agreement.error"]
)  # fmt: skip


@given(st.data())
def test_no_value_of_a_statement_can_be_another(folder: Path, data: st.DataObject) -> None:
    found = statement(data.draw(st.sampled_from(list(ALL.values()))))
    path = data.draw(st.sampled_from([path for path in places(found) if path]))
    value = data.draw(VALUES)
    changed = put(found, path, lambda inner, key: inner.__setitem__(key, value))
    assume(changed != found)
    assert not held(folder, changed)


@given(st.data())
def test_nothing_can_be_taken_from_a_statement_or_added(folder: Path, data: st.DataObject) -> None:
    found = statement(data.draw(st.sampled_from(list(ALL.values()))))
    path = data.draw(st.sampled_from([path for path in places(found) if path]))
    assert not held(folder, put(found, path, lambda inner, key: inner.pop(key)))

    def add(inner: Any, key: Any) -> None:
        if isinstance(inner, dict):
            inner[f"{key} more"] = inner[key]
        else:
            inner.append(inner[key])

    assert not held(folder, put(found, path, add))


def held(folder: Path, found: Any) -> bool:
    try:
        return not problems(folder, found)
    except UsageError:
        return False


@given(st.integers(0, len(REAL_LINE) - 1), st.integers(0, 255))
def test_no_byte_of_a_statement_can_be_another(folder: Path, place: int, byte: int) -> None:
    line = bytearray(REAL_LINE.encode())
    assume(line[place] != byte)
    path = folder / "bytes.intoto.jsonl"
    path.write_bytes(line)
    assert holds(path)
    line[place] = byte
    path.write_bytes(line)
    assert not holds(path)


@given(st.data())
def test_no_value_in_the_evidence_can_be_another_without_its_digest_showing_it(
    folder: Path, data: st.DataObject
) -> None:
    """With its digest made anew too, either the rest of the statement shows it, or no verdict depends on it."""
    found = statement(MOCK)
    content = json.loads(base64.b64decode(evidence(found)["content"]))
    path = data.draw(st.sampled_from([path for path in places(content) if path]))
    value = data.draw(VALUES | st.floats(allow_nan=False))
    changed = put(content, path, lambda inner, key: inner.__setitem__(key, value))
    assume(changed != content)
    text = json.dumps(changed, sort_keys=True, separators=(",", ":")).encode()
    kept = copy.deepcopy(found)
    evidence(kept)["content"] = base64.standard_b64encode(text).decode()
    assert problems(folder, kept) == ("evidence: its SHA-256 is not that of its content",)
    (each,) = checked(folder, with_evidence(text, MOCK))
    if each.cell:
        assert (each.cell.status, each.cell.checkpoint) == (MOCK.status, MOCK.checkpoint)
        assert [one.verdict for one in each.cell.evidence] == [one.verdict for one in MOCK.evidence]


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_byte_under_a_signature_can_be_another(
    folder: Path, keys: tuple[PrivateKey, Path], place: int, flip: int
) -> None:
    private, public = keys
    payload = bytearray(REAL_LINE.encode())
    sealed = private.seal(bytes(payload))
    assert not problems(folder, sealed, public)
    payload[place] ^= flip
    forged = sealed | {"payload": base64.standard_b64encode(payload).decode()}
    assert problems(folder, forged, public) == ("signature: not made by this key, or not of this content",)


@given(st.integers(0, 100_000), st.booleans())
def test_of_a_file_that_was_cut_off_less_holds(
    folder: Path, keys: tuple[PrivateKey, Path], length: int, signed: bool
) -> None:
    private, public = keys
    lines = [REAL_LINE, json.dumps(statement(MOCK))]
    if signed:
        lines = [json.dumps(private.seal(line.encode())) for line in lines]
    text = "".join(f"{line}\n" for line in lines)
    path = folder / "cut.intoto.jsonl"
    path.write_text(text[: length % (len(text) - 1)], encoding="utf-8")
    try:
        found = verify(path, public if signed else None)
    except UsageError:
        return
    assert sum(each.cell is not None for each in found) < 2


# Why not


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found.update(_type="https://in-toto.io/Statement/v0.1"), "_type: 'https://in-toto.io/Statement/v0"),
        (lambda found: found.update(predicateType="https://slsa.dev/provenance/v1"), "predicateType: 'https://slsa.dev"),
        (lambda found: found["predicate"].update(result="PASSED"), 'predicate.result: "PASSED", but "FAILED" follows'),
        (lambda found: found["subject"][0]["digest"].update(sha256="0" * 64), "subject[0].digest.sha256: is not what"),
        (lambda found: found["predicate"]["failedTests"].clear(), "predicate.failedTests: [], but ["),
        (lambda found: found["predicate"]["configuration"].pop(), "predicate.configuration: ["),
        (lambda found: found["predicate"]["configuration"].pop(0), "predicate.configuration: holds no evidence"),
        (lambda found: evidence(found)["annotations"].update(assay_status="REAL"),
         'predicate.configuration[0].annotations.assay_status: "REAL", but "MOCK" follows'),
        (lambda found: found.update(subject=statement(REAL)["subject"]), 'subject[0].name: "bert-tiny", but "t5-tiny"'),
    ],
)  # fmt: skip
def test_the_reason_says_what_does_not_follow(
    change: Callable[[dict[str, Any]], object], said: str, folder: Path
) -> None:
    found = statement(MOCK)
    change(found)
    assert problems(folder, found)[0].startswith(said)


def test_evidence_that_leads_elsewhere_is_seen_through_its_right_digest(folder: Path) -> None:
    content = base64.b64decode(evidence(statement(MOCK))["content"])
    found = problems(folder, with_evidence(content, merged(make.cell("t5", "openvino"))))
    assert 'predicate.result: "PASSED", but "FAILED" follows from the evidence' in found
    assert (
        "predicate.configuration[0].annotations.assay_status: " + '"REAL", but "MOCK" follows from the evidence'
        in found
    )


def edited(change: Callable[[Any], object], *path: str | int) -> bytes:
    """The evidence of a REAL cell, changed at a place."""
    content = inner = json.loads(base64.b64decode(evidence(statement(REAL))["content"]))
    for key in path:
        inner = inner[key]
    change(inner)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


CELL = ("cells", 0)
NOT_OURS = "evidence: is not written as assay writes it"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (edited(lambda cell: cell.update(status="REAL"), *CELL), NOT_OURS),
        (edited(lambda check: check.update(verdict="passed"), *CELL, "evidence", 0, "checks", 0), NOT_OURS),
        (edited(lambda matrix: matrix.update(superseded=matrix["cells"])), NOT_OURS),
        (edited(lambda _: None) + b"\n", NOT_OURS),
        (edited(lambda cells: cells.append(cells[0]), "cells"), "evidence: holds 2 cells, not one"),
        (edited(lambda matrix: matrix.update(schema_version=2)), "evidence: schema_version 2 is newer"),
        (edited(lambda cell: cell.update(colour="red"), *CELL), "evidence: cells[0].colour: unknown key"),
        (edited(lambda cell: cell.pop("checkpoint"), *CELL), "evidence: the cell is UNPROVEN, of a checkpoint"),
        (edited(lambda cell: cell.pop("session"), *CELL), "evidence: the cell is REAL, of a session"),
        (edited(lambda cell: cell.update(unavailable={"reason": "none"}), *CELL), "evidence: the cell is UNAVAILABLE"),
        (edited(lambda cell: cell.pop("evidence"), *CELL), "evidence: the cell is PENDING, which is no verdict"),
        (b'{"cells":[],"cells":[]}', "is not JSON that can be read: a key is there twice"),
        (b"\xff", "is not JSON that can be read: 'utf-8' codec"),
        (b"[" * 100_000, "is not JSON that can be read: "),
    ],
)  # fmt: skip
def test_evidence_that_assay_did_not_write_is_refused(content: bytes, said: str, folder: Path) -> None:
    assert problems(folder, with_evidence(content))[0].startswith(said)


def test_a_key_that_is_there_twice_is_refused(folder: Path) -> None:
    twice = REAL_LINE.replace('"result":"PASSED"', '"result":"FAILED","result":"PASSED"')
    refused, held = checked(folder, twice, REAL_LINE)
    assert refused.problems == ("is not JSON that can be read: a key is there twice",) and held.cell == REAL


def test_only_a_signature_stops_a_forger_who_makes_all_of_it_anew(folder: Path, keys: tuple[PrivateKey, Path]) -> None:
    """What the page says: without a key, a statement says what follows from its evidence, and not whose it is."""
    private, public = keys
    forged = statement(merged(make.cell("t5", "openvino")))
    assert not problems(folder, forged)
    assert problems(folder, forged, public) == ("is not signed, and --key asks for a signature",)
    sealed = private.seal(json.dumps(statement(MOCK)).encode())
    resealed = sealed | {"payload": base64.standard_b64encode(json.dumps(forged).encode()).decode()}
    assert problems(folder, resealed, public) == ("signature: not made by this key, or not of this content",)


def test_a_signature_does_not_stand_for_a_verdict(folder: Path, keys: tuple[PrivateKey, Path]) -> None:
    private, public = keys
    found = statement(MOCK)
    found["predicate"]["result"] = "PASSED"
    (said,) = problems(folder, private.seal(json.dumps(found).encode()), public)
    assert said.startswith('predicate.result: "PASSED", but "FAILED" follows')
    for payload, said in ((b"[]", "is no in-toto statement"), (b"{", "is not JSON"), (b"\xff", "is not JSON")):
        assert problems(folder, private.seal(payload), public)[0].startswith(said)


# The command


def test_a_line_for_each_and_1_where_some_does_not_hold(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forged = statement(MOCK)
    forged["predicate"] |= {"result": "PASSED", "failedTests": []}
    checked(folder, REAL_LINE, forged, "{", statement(MOCK), {"other": 1})
    path = str(folder / "bundle.intoto.jsonl")
    assert main(["verify", path]) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert not said.err
    assert REAL.checkpoint and MOCK.checkpoint
    real, mock = (f"{cell.family}-tiny {cell.checkpoint.sha256[:8]}" for cell in (REAL, MOCK))
    assert lines == [
        f"verified ✔ REAL bert on cpu, tiny, f32: PASSED for {real}, 33 passed",
        'refused  line 2: predicate.result: "PASSED", but "FAILED" follows from the evidence (and 1 more)',
        "refused  line 3: is not JSON, or was cut off: Expecting property name enclosed in double quotes (column 2)",
        f"verified ◌ MOCK t5 on openvino, tiny, f32: FAILED for {mock}, 32 passed, 1 failed",
        "refused  line 5: is no in-toto statement, and no envelope of one",
        "2 statements verified, not signed, so that nobody vouches for them; 3 refused",
    ]
    assert main(["verify", path, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(each["line"], each["verified"]) for each in found] == [
        (1, True),
        (2, False),
        (3, False),
        (4, True),
        (5, False),
    ]
    assert found[3]["status"] == "MOCK" and found[3]["result"] == "FAILED" and found[3]["signed_by"] is None
    assert len(found[1]["problems"]) == 2


def test_a_mistake_is_one_line(
    folder: Path, keys: tuple[PrivateKey, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, _ = keys
    sealed = json.dumps(private.seal(REAL_LINE.encode()))
    files: dict[str, str | bytes] = {
        "signed": f"{REAL_LINE}\n{sealed}\n", "empty": "", "blank": "\n\n", "binary": b"\xff\xfe\x00",
        "cut": REAL_LINE[:99], "number": "1",
        "matrix": MATRIX.model_dump_json(), "indented": MATRIX.model_dump_json(indent=1),
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    for arguments, said in (
        (["none"], "none: cannot be read: No such file or directory"),
        (["signed"], "signed: line 2 is signed; --key takes the public key of who signed it"),
        (["empty"], "empty: is empty"),
        (["blank"], "blank: is empty"),
        (["binary"], "binary: is not UTF-8 text, so no attestation"),
        (["cut"], "cut: no attestation in it; line 1 is not JSON, or was cut off"),
        (["matrix"], "matrix: no attestation in it; line 1 is no in-toto statement, and no envelope of one"),
        (["indented"], "indented: no attestation in it; line 1 is not JSON, or was cut off"),
        (["number"], "number: no attestation in it; line 1 is no in-toto statement, and no envelope of one"),
        (["signed", "--key", str(tmp_path / "empty")], "empty: holds no public key in PEM that can verify"),
    ):
        file, *options = arguments
        assert main(["verify", str(tmp_path / file), *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
