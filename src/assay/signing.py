"""DSSE envelopes, signed and opened by securesystemslib with local keys, which it takes from cryptography.

Both are optional packages, imported where a key is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.errors import UsageError

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_PUBLIC = "`openssl pkey -in KEY -pubout` writes the public half of a key"


class Untrusted(Exception):
    """An envelope that is none, or that the key did not sign; one clear line."""


@dataclass(frozen=True)
class PrivateKey:
    """A key that signs."""

    signer: CryptoSigner

    @property
    def id(self) -> str:
        """That of its public half."""
        name: str = self.signer.public_key.keyid
        return name

    def seal(self, payload: bytes) -> dict[str, Any]:
        """The signed envelope of a payload, as JSON's types."""
        from securesystemslib.dsse import Envelope

        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        envelope.sign(self.signer)
        sealed: dict[str, Any] = envelope.to_dict()
        return sealed


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies."""

    key: SSlibKey

    @property
    def id(self) -> str:
        """SHA-256 of the key as securesystemslib writes it."""
        name: str = self.key.keyid
        return name

    def open(self, sealed: Mapping[str, Any]) -> bytes:
        """The payload of an envelope that this key signed.

        Raises:
            Untrusted: it is no envelope, of another type, or not signed by this key.
        """
        from securesystemslib.dsse import Envelope
        from securesystemslib.exceptions import UnverifiedSignatureError

        try:
            envelope = Envelope.from_dict({**sealed, "signatures": [dict(each) for each in sealed["signatures"]]})
            keys = self._named_as_in(envelope)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Untrusted(f"is no DSSE envelope: {error!r}") from error
        if envelope.payload_type != PAYLOAD_TYPE:
            raise Untrusted(f"payloadType: {envelope.payload_type!r} is not {PAYLOAD_TYPE}")
        if not keys:
            raise Untrusted("signatures: there is none")
        try:
            envelope.verify(keys, 1)
        except UnverifiedSignatureError as error:
            raise Untrusted("signature: not made by this key, or not of this content") from error
        payload: bytes = envelope.payload
        return payload

    def _named_as_in(self, envelope: Envelope) -> list[SSlibKey]:
        """This key under each signature's name: DSSE's `keyid` is a hint, and securesystemslib goes by it."""
        from securesystemslib.signer import SSlibKey

        return [
            SSlibKey(name, self.key.keytype, self.key.scheme, dict(self.key.keyval)) for name in envelope.signatures
        ]


def private_key(path: Path) -> PrivateKey:
    """The key in a PEM file, as openssl writes it: Ed25519, ECDSA on a NIST curve, RSA.

    Raises:
        UsageError: there is none that can sign, it is encrypted, or the packages are not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner
    except ImportError as error:
        raise _missing() from error
    content = _read(path)
    try:
        return PrivateKey(CryptoSigner(load_pem_private_key(content, None)))
    except TypeError as error:
        raise UsageError(f"{path}: is encrypted; `--key <(openssl pkey -in {path})` asks for its passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        remedy = "`openssl genpkey -algorithm ed25519 -out key.pem` makes one"
        raise UsageError(f"{path}: holds no private key in PEM that can sign; {remedy}") from error


def public_key(path: Path) -> PublicKey:
    """The key in a PEM file.

    Raises:
        UsageError: there is none that can verify, or the packages are not installed.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
        from securesystemslib.signer import SSlibKey
    except ImportError as error:
        raise _missing() from error
    content = _read(path)
    try:
        return PublicKey(SSlibKey.from_crypto(load_pem_public_key(content)))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: holds no public key in PEM that can verify; {_PUBLIC}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _missing() -> UsageError:
    return UsageError(
        "keys need securesystemslib and cryptography, which are not installed here; "
        '`python -m pip install "securesystemslib[crypto]"`'
    )
