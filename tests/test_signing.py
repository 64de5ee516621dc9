"""Envelopes and keys, checked by others than the library that makes them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import UsageError
from assay.signing import PAYLOAD_TYPE, Untrusted, private_key, public_key

OPENSSL = shutil.which("openssl")
PAYLOAD = b'{"_type": "\xc3\xa9"}'
PAE = b"DSSEv1 28 application/vnd.in-toto+json 15 " + PAYLOAD
"""What DSSE signs, written out by hand: lengths in bytes."""
PSS = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
KEYS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), ()),
    "p256": (ec.generate_private_key(ec.SECP256R1()), (ec.ECDSA(SHA256()),)),
    "p384": (ec.generate_private_key(ec.SECP384R1()), (ec.ECDSA(SHA384()),)),
    "rsa": (rsa.generate_private_key(65537, 2048), (PSS, SHA256())),
}
"""Keys, and how cryptography verifies what they sign."""


def written(key: Any, folder: Path, encryption: KeySerializationEncryption | None = None) -> tuple[Path, Path]:
    """Both halves as PEM, as openssl writes them."""
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def signature(sealed: dict[str, Any]) -> bytes:
    (found,) = sealed["signatures"]
    return base64.b64decode(found["sig"])


@pytest.mark.parametrize("name", KEYS)
def test_what_a_key_seals_cryptography_verifies_and_its_other_half_opens(name: str, tmp_path: Path) -> None:
    key, how = KEYS[name]
    private, public = written(key, tmp_path)
    sealed = json.loads(json.dumps(private_key(private).seal(PAYLOAD)))
    assert (base64.b64decode(sealed["payload"]), sealed["payloadType"]) == (PAYLOAD, PAYLOAD_TYPE)
    key.public_key().verify(signature(sealed), PAE, *how)
    with pytest.raises(InvalidSignature):
        key.public_key().verify(signature(sealed), PAE + b" ", *how)
    before = json.dumps(sealed)
    assert public_key(public).open(sealed) == PAYLOAD
    assert json.dumps(sealed) == before


@pytest.mark.skipif(OPENSSL is None, reason="no openssl here")
@pytest.mark.parametrize("asked", ["-algorithm ed25519", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"])
def test_openssl_makes_the_keys_and_verifies_the_signature(asked: str, tmp_path: Path) -> None:
    def openssl(*arguments: str) -> str:
        words = [str(OPENSSL), *arguments]
        return subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    openssl("genpkey", *asked.split(), "-out", "key.pem")
    openssl("pkey", "-in", "key.pem", "-pubout", "-out", "key.pub")
    sealed = private_key(tmp_path / "key.pem").seal(PAYLOAD)
    assert public_key(tmp_path / "key.pub").open(sealed) == PAYLOAD
    (tmp_path / "pae").write_bytes(PAE)
    (tmp_path / "sig").write_bytes(signature(sealed))
    said = openssl("pkeyutl", "-verify", "-pubin", "-inkey", "key.pub", "-rawin", "-in", "pae", "-sigfile", "sig")
    assert "Verified Successfully" in said


@pytest.mark.parametrize("name", KEYS)
def test_what_is_not_of_this_key_or_content_is_not_opened(name: str, tmp_path: Path) -> None:
    key, _ = KEYS[name]
    private, public = written(key, tmp_path)
    sealed = private_key(private).seal(PAYLOAD)
    mine = public_key(public)
    bad = bytearray(signature(sealed))
    bad[-1] ^= 1
    for changes, said in (
        ({"payload": base64.b64encode(PAYLOAD + b" ").decode()}, "signature: not made by this key"),
        ({"payloadType": "application/vnd.in-toto+xml"}, "payloadType: 'application/vnd.in-toto+xml' is not"),
        (
            {"signatures": [{"keyid": mine.id, "sig": base64.b64encode(bad).decode()}]},
            "signature: not made by this key",
        ),
        ({"signatures": [{"keyid": mine.id, "sig": ""}]}, "signature: not made by this key"),
        ({"signatures": []}, "signatures: there is none"),
        ({"signatures": [{"keyid": mine.id}]}, "is no DSSE envelope: KeyError('sig')"),
        ({"payload": "!"}, "is no DSSE envelope"),
    ):
        with pytest.raises(Untrusted) as caught:
            mine.open(sealed | changes)
        assert str(caught.value).startswith(said)
    for other, _ in KEYS.values():
        if other is not key:
            _, theirs = written(other, tmp_path)
            with pytest.raises(Untrusted, match="not made by this key"):
                public_key(theirs).open(sealed)


def test_the_name_of_a_key_is_a_hint(tmp_path: Path) -> None:
    private, public = written(KEYS["ed25519"][0], tmp_path)
    sealed = private_key(private).seal(PAYLOAD)
    (found,) = sealed["signatures"]
    for name in ("", "another's"):
        assert public_key(public).open(sealed | {"signatures": [found | {"keyid": name}]}) == PAYLOAD


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(KEYS["ed25519"][0], tmp_path_factory.mktemp("keys"))[1]


@settings(max_examples=50)
@given(
    st.fixed_dictionaries({}, optional={
        "payload": st.just("") | _anything, "payloadType": st.just(PAYLOAD_TYPE) | _anything,
        "signatures": st.lists(st.fixed_dictionaries({}, optional={
            "keyid": st.text() | _anything, "sig": st.just("") | _anything
        })) | _anything,
    })
)  # fmt: skip
def test_whatever_else_there_is_is_no_envelope_of_this_key(public: Path, sealed: dict[str, Any]) -> None:
    with pytest.raises(Untrusted):
        public_key(public).open(sealed)


def test_a_file_that_holds_no_such_key_is_one_line(tmp_path: Path) -> None:
    for key, encryption, said in (
        (KEYS["ed25519"][0], BestAvailableEncryption(b"secret"), "is encrypted; `--key <(openssl pkey -in "),
        (ec.generate_private_key(ec.SECP256K1()), None, "holds no private key in PEM that can sign"),
    ):
        private, _ = written(key, tmp_path, encryption)
        with pytest.raises(UsageError, match=r"key\.pem: ") as caught:
            private_key(private)
        assert said in str(caught.value)
    private, public = written(KEYS["p256"][0], tmp_path)
    empty = tmp_path / "empty"
    empty.touch()
    for read, path in ((private_key, public), (public_key, private), (private_key, empty), (public_key, empty)):
        with pytest.raises(UsageError, match=r"holds no (private|public) key in PEM that can (sign|verify); `openssl "):
            read(path)
    for read in (private_key, public_key):
        with pytest.raises(UsageError, match="none: cannot be read: No such file"):
            read(tmp_path / "none")
