"""Both ends show that they are pods of one service: each knows a secret, and neither tells it.

    sender ── nonce ──▶ receiver     whoever has the address
    sender ◀── challenge, proofs ──  HMAC of the nonce and of the receiver's revision
    sender ── proof, texts ──▶       HMAC of the nonce and of the challenge; the same connection

The secret is an API key where there are any, else the identity that the pods were given. While keys
are exchanged the two may know different ones, so the receiver proves some. Whoever hears a proof
could try keys on it: each try is made dear.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reranker_gateway.api_keys import some_keys
from reranker_gateway.clock import Clock

#: Headers of a request; the last two only where texts are.
NONCE_HEADER: Final = "x-reranker-shadow-nonce"
CHALLENGE_HEADER: Final = "x-reranker-shadow-challenge"
PROOF_HEADER: Final = "x-reranker-shadow-proof"
#: Keys that are tried, in the order of their names.
MOST_SECRETS: Final = 4
#: Seconds in which a challenge has to be answered.
_CHALLENGE_SECONDS: Final = 60
_RANDOM: Final = re.compile(r"[0-9a-f]{64}")
_CHALLENGE: Final = re.compile(r"([0-9]{1,15})-([0-9a-f]{64})")


def new_nonce() -> str:
    """What no one can foretell."""
    return secrets.token_hex(32)


def is_nonce(text: str) -> bool:
    """Has the form of a nonce, or of a proof."""
    return _RANDOM.fullmatch(text) is not None


def is_challenge(text: str) -> bool:
    """Has the form of a challenge."""
    return _CHALLENGE.fullmatch(text) is not None


def receiver_proof(secret: bytes, nonce: str, revision: str) -> str:
    """By which the receiver shows that it knows `secret`."""
    return _code(secret, f"reranker-shadow:{nonce}:{revision}")


def sender_proof(secret: bytes, nonce: str, challenge: str) -> str:
    """By which the sender does."""
    return _code(secret, f"reranker-shadow-sender:{nonce}:{challenge}")


def proven_by(proofs: Sequence[str], known: Sequence[str]) -> int | None:
    """Place in `known` of a proof that is among `proofs`, None where none is."""
    found = None
    for place, expected in enumerate(known):
        for proof in proofs:
            if hmac.compare_digest(proof.encode(), expected.encode()):
                found = place
    return found


class Secrets:
    """What this process can show that it knows."""

    def __init__(self, keys_dir: Path | None, identity: str) -> None:
        """`keys_dir` holds API keys; `identity` counts where there is none."""
        self._keys_dir = keys_dir
        self._identity = identity.encode()
        #: By the hash of what they were made from.
        self._made: dict[bytes, bytes] = {}

    def current(self) -> list[bytes]:
        """The secrets, best first; blocks for a while. Raises ApiKeysError."""
        keys = [self._identity]
        if self._keys_dir is not None:
            keys = some_keys(self._keys_dir, MOST_SECRETS)
        hashes = [hashlib.sha256(key).digest() for key in keys]
        self._made = {
            digest: self._made.get(digest) or _made_dear(key)
            for digest, key in zip(hashes, keys, strict=True)
        }
        return list(self._made.values())


class Challenges:
    """Made by the receiver, and known again without being kept: nobody can use up their number."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)

    def new(self) -> str:
        """One that has to be answered soon."""
        end = str(int(self._clock()) + _CHALLENGE_SECONDS)
        return f"{end}-{_code(self._secret, end)}"

    def holds(self, challenge: str) -> bool:
        """It is one of these, and not too old."""
        found = _CHALLENGE.fullmatch(challenge)
        if found is None or not hmac.compare_digest(_code(self._secret, found[1]), found[2]):
            return False
        return self._clock() < int(found[1])


def _made_dear(key: bytes) -> bytes:
    return hashlib.scrypt(key, salt=b"reranker-shadow", n=1 << 14, r=8, p=1, dklen=32)


def _code(secret: bytes, text: str) -> str:
    return hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
