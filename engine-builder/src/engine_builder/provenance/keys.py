"""Keys for signatures: ECDSA P-256, cosign's default, and Ed25519.

Private keys are PKCS#8 in PEM, with or without a password; public ones SubjectPublicKeyInfo in
PEM, which is what `cosign.pub` is. cosign's own encrypted form of a private key is not read.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from engine_builder.errors import UsageError

_MAX_BYTES = 1 << 16
_KINDS = "an ECDSA P-256 or Ed25519 key in PEM"


@dataclass(frozen=True)
class PublicKey:
    """Checks signatures."""

    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

    @property
    def id(self) -> str:
        """sha256 of the key's DER form, hex."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return hashlib.sha256(self.key.public_bytes(serialization.Encoding.DER, form)).hexdigest()

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` of `message` was made with the private half."""
        try:
            if isinstance(self.key, ed25519.Ed25519PublicKey):
                self.key.verify(signature, message)
            else:
                self.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """Signs."""

    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature; that of ECDSA in DER, over SHA-256."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return self.key.sign(message)
        return self.key.sign(message, ec.ECDSA(hashes.SHA256()))


def load_signing_key(path: Path, password: str | None) -> SigningKey:
    """Read a private key. Raises UsageError for anything else, also for a wrong password."""
    data = _read(path)
    if b"SIGSTORE PRIVATE KEY" in data or b"COSIGN PRIVATE KEY" in data:
        raise UsageError(
            f"{path}: is in cosign's own encrypted form; give the key in PEM that you brought to "
            "`cosign import-key-pair`"
        )
    try:
        key = serialization.load_pem_private_key(data, password.encode() if password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: cannot be read ({type(error).__name__}); give {_KINDS}, and its password in "
            "COSIGN_PASSWORD if it has one"
        ) from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return SigningKey(key)
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return SigningKey(key)
    raise UsageError(f"{path}: is a key of another kind; give {_KINDS}")


def load_public_key(path: Path) -> PublicKey:
    """Read a public key. Raises UsageError for anything else."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path}: is no public key ({type(error).__name__}); give {_KINDS}"
        ) from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return PublicKey(key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return PublicKey(key)
    raise UsageError(f"{path}: is a key of another kind; give {_KINDS}")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
