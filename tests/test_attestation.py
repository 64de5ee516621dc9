"""`assay attest`: what a statement holds, as its readers see it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult as Predicate
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from safetensors.numpy import save_file

from assay.attestation import BUNDLE, DIGEST, RESULTS, statement, unattestable
from assay.checkpoints import digest, opened
from assay.cli import main
from assay.matrix import MatrixCell
from assay.merge import merge
from assay.report_files import read_matrix
from assay.schema import Cell, Evidence, Layer, Status
from assay.signing import private_key
from tests import strategies as make
from tests.conftest import Assay
from tests.test_signing import KEYS, written

MATRIX = make.full_matrix()
CELLS = {cell.status: cell for cell in reversed(MATRIX.cells) if not unattestable(cell)}
"""The first of each status."""


def merged(cell: Cell) -> MatrixCell:
    """The cell as a matrix has it."""
    return next(each for each in merge((make.report(cell),), (), ()).cells if each.session)


def described(found: dict[str, Any], name: str) -> dict[str, Any]:
    (descriptor,) = (each for each in found["predicate"]["configuration"] if each["name"] == name)
    return descriptor


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "matrix.json"
    path.write_text(MATRIX.model_dump_json(), encoding="utf-8")
    return path


def test_every_status_is_attested_or_no_verdict() -> None:
    assert set(CELLS) == set(RESULTS) - {Status.FAILED}  # this matrix has failures before the checkpoint was known
    assert set(Status) - set(RESULTS) == {Status.UNAVAILABLE, Status.PENDING}
    assert [RESULTS[status] for status in (Status.REAL, Status.UNPROVEN, Status.MOCK)] == ["PASSED", "WARNED", "FAILED"]


@pytest.mark.parametrize(
    "cell", [*CELLS.values(), merged(make.failed(known=True))], ids=[*map(str, CELLS), str(Status.FAILED)]
)
def test_in_totos_own_reader_takes_it(cell: MatrixCell) -> None:
    found = statement(cell)
    read = json_format.Parse(json.dumps(found), statement_pb2.Statement())  # refuses fields that it does not know
    Statement.copy_from_pb(read).validate()
    predicate = json_format.ParseDict(json_format.MessageToDict(read.predicate), Predicate())
    assert predicate.result == RESULTS[cell.status]
    names = [f"{evidence.layer}.{check.name}" for evidence in cell.evidence for check in evidence.checks]
    told = [*predicate.passed_tests, *predicate.warned_tests, *predicate.failed_tests]
    assert sorted(told) == sorted(names or ["builder.build"])
    for each in predicate.configuration:
        assert each.name and (each.uri or each.content)  # the specification's least, and a name
        assert not each.content or each.digest["sha256"] == hashlib.sha256(each.content).hexdigest()


def test_each_check_stands_in_the_list_of_its_verdict() -> None:
    changed = {(Layer.AGREEMENT, "error"): False, (Layer.TIMING, "covered"): None}
    found = statement(merged(make.cell(evidence=make.evidence(changed))))["predicate"]
    assert found["failedTests"] == ["agreement.error"]
    assert found["warnedTests"] == ["timing.covered"]
    assert "weights.tensors" in found["passedTests"] and "timing.covered" not in found["passedTests"]


def test_a_layer_that_was_not_judged_is_named() -> None:
    evidence = [each for each in make.evidence() if each.layer is not Layer.PROVENANCE]
    cell = merged(make.cell(evidence=[*evidence, Evidence(layer=Layer.PROVENANCE, not_judged="no record")]))
    assert cell.status is Status.REAL
    assert statement(cell)["predicate"]["warnedTests"] == ["provenance"]


def test_the_subject_is_the_checkpoint_by_a_digest_that_does_not_pass_for_a_files() -> None:
    cell = CELLS[Status.REAL]
    assert cell.checkpoint
    assert statement(cell)["subject"] == [{"name": cell.checkpoint.name, "digest": {DIGEST: cell.checkpoint.sha256}}]
    own = cell.checkpoint.model_copy(update={"name": "org/some model", "source": "hub", "revision": "ab" * 20})
    (subject,) = statement(cell.model_copy(update={"checkpoint": own}))["subject"]
    assert subject["uri"] == f"pkg:huggingface/org/some%20model@{'ab' * 20}"


def test_the_digest_is_that_of_the_folder(tmp_path: Path) -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = np.arange(6, dtype=np.float32)
    save_file({"weight": weights}, tmp_path / "model.safetensors")
    cell = merged(make.cell(size="own", checkpoint=opened("bert", tmp_path).ref()))
    (subject,) = statement(cell)["subject"]
    assert subject == {"name": tmp_path.name, "digest": {DIGEST: digest(tmp_path)}}
    save_file({"weight": weights[::-1].copy()}, tmp_path / "model.safetensors")
    assert subject["digest"] != {DIGEST: digest(tmp_path)}


def test_the_environment_is_in_it() -> None:
    found = statement(merged(make.cell(software={"typing_extensions": "4.16.0"})))
    assert described(found, "torch")["uri"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert described(found, "typing_extensions")["uri"] == "pkg:pypi/typing-extensions@4.16.0"
    assert described(found, "assay")["uri"] == "pkg:pypi/assay@0.1.0"
    assert described(found, "python")["uri"] == "pkg:generic/python@3.12.1"
    machine = json.loads(base64.b64decode(described(found, "machine")["content"]))
    assert machine == {
        "name": "box", "system": "Linux", "processor": make.CPU, "cores": 2, "memory": 8 * 2**30, "threads": 2
    }  # fmt: skip


@pytest.mark.parametrize("cell", CELLS.values(), ids=map(str, CELLS))
def test_the_evidence_is_a_matrix_that_other_commands_read(
    cell: MatrixCell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "matrix.json"
    path.write_bytes(base64.b64decode(described(statement(cell), "evidence")["content"]))
    assert main(["show", str(path), "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["cells"]
    assert shown == cell.model_dump(mode="json")
    assert b'"status"' not in path.read_bytes() and b'"verdict"' not in path.read_bytes()


def test_what_is_left_out_is_said(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", str(matrix), "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / BUNDLE}\n"
    assert said.err == (
        "assay: 14 statements, not signed: --key signs them; 10 cells left out: UNAVAILABLE, which is no verdict; "
        "15 cells left out: PENDING, which is no verdict; "
        "1 cell left out: FAILED, of a checkpoint that is not known, so that there is no subject\n"
    )
    lines = (tmp_path / BUNDLE).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [statement(cell) for cell in MATRIX.cells if not unattestable(cell)]


def test_a_part_can_be_chosen(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["attest", str(matrix), "--family", "bert,t5", "--backend", "openvino", "--output", str(tmp_path)]
    assert main(asked) == 0
    lines = (tmp_path / BUNDLE).read_text(encoding="utf-8").splitlines()
    about = [described(json.loads(line), "evidence")["annotations"] for line in lines]
    assert [(each["assay_family"], each["assay_status"]) for each in about] == [("bert", "INACCURATE"), ("t5", "MOCK")]


def test_a_mistake_is_one_line(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for arguments, said in (
        ([str(tmp_path / "none.json")], "none.json: no such file"),
        ([str(matrix), "--family", "bertt"], "unknown family 'bertt'; did you mean bert?"),
        ([str(matrix), "--backend", "cuda"], "nothing to attest; 10 cells left out: UNAVAILABLE"),
        ([str(matrix), "--key", str(tmp_path / "file")], "file: holds no private key in PEM that can sign"),
        ([str(matrix), "--output", str(tmp_path / "file")], f"file/{BUNDLE}: cannot be written"),
    ):
        assert main(["attest", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


def test_without_the_packages_only_keys_are_refused(matrix: Path, tmp_path: Path) -> None:
    hidden = "import sys; sys.modules |= dict.fromkeys(('cryptography', 'securesystemslib')); "

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = f"{hidden}from assay.cli import main; sys.exit(main({list(arguments)!r}))"
        return subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)

    bundle = str(tmp_path / BUNDLE)
    assert run("attest", str(matrix), "--output", str(tmp_path)).returncode == 0
    assert run("verify", bundle).returncode == 0
    for arguments in (("attest", str(matrix)), ("verify", bundle)):
        refused = run(*arguments, "--key", str(tmp_path / "key.pem"))
        assert refused.returncode == 2
        assert refused.stderr == (
            "assay: error: keys need securesystemslib and cryptography, which are not installed here; "
            '`python -m pip install "securesystemslib[crypto]"`\n'
        )


def test_a_user_attests_and_another_verifies(assay: Assay, matrix: Path, tmp_path: Path) -> None:
    private, public = written(KEYS["ed25519"][0], tmp_path)
    sent = assay("attest", matrix, "--key", private, "--output", tmp_path)
    assert (sent.returncode, sent.stdout) == (0, f"{tmp_path / BUNDLE}\n")
    assert sent.stderr.startswith(f"assay: 14 statements, signed by {private_key(private).id}; 10 cells left out")
    received = assay("verify", tmp_path / BUNDLE, "--key", public)
    assert received.returncode == 0 and not received.stderr
    lines = received.stdout.splitlines()
    assert lines[0].startswith("verified ✔ REAL bert on cpu, tiny, f32: PASSED for bert-tiny ")
    assert any(line.startswith("verified ◌ MOCK t5 on openvino, tiny, f32: FAILED for t5-tiny ") for line in lines)
    assert lines[-1] == f"14 statements verified, signed by {private_key(private).id}"
    content = (tmp_path / BUNDLE).read_text(encoding="utf-8")
    (tmp_path / BUNDLE).write_text(content[:-9], encoding="utf-8")
    received = assay("verify", tmp_path / BUNDLE, "--key", public)
    assert received.returncode == 1
    assert received.stdout.splitlines()[-2].startswith("refused  line 14: is not JSON, or was cut off")
    assert received.stdout.splitlines()[-1].startswith("13 statements verified, signed by ")
    assert received.stdout.endswith("; 1 refused\n")


@pytest.mark.skipif(None in map(shutil.which, ("jq", "openssl")), reason="no jq or no openssl here")
def test_the_commands_for_other_tools_do_what_the_page_says(matrix: Path, tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "attestation.md"
    (script,) = re.findall(r"```sh\n(head .+?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    private, _ = written(KEYS["ed25519"][0], tmp_path)
    assert main(["attest", str(matrix), "--key", str(private), "--output", str(tmp_path / "reports")]) == 0
    ran = subprocess.run(["/bin/sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0 and "Verified Successfully" in ran.stdout
    assert read_matrix(tmp_path / "matrix.json").cells == (CELLS[Status.REAL],)
