"""API keys from a mounted Secret: each file of a folder holds one, named by the file.

A kubelet swaps the whole folder at once when the Secret changes (`..data` is a link), so keys come
and go without a restart. Several at a time make rotation possible: add the new one, move the
clients, remove the old one.
"""

import hashlib
import hmac
import logging
from pathlib import Path

from reranker_gateway.clock import Clock
from reranker_gateway.logs import log_event

_MOST_KEYS = 256
_LONGEST_KEY = 4096
_CHECK_SECONDS = 1.0
_SETTING = "RERANKER_API_KEYS_DIR"
_log = logging.getLogger(__name__)


class ApiKeysError(Exception):
    """The folder cannot be used; the message says why."""


class ApiKeys:
    """The keys in `folder`, read again when it changes."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Raises ApiKeysError: a server that was told to ask for keys never starts without."""
        self._folder = folder
        self._clock = clock
        self._checked = clock()
        self._version = _version(folder)
        self._hashes = _read(folder)
        if not self._hashes:
            raise ApiKeysError(f"{_SETTING}: {folder} holds no keys; add one to the Secret")

    def owner(self, presented: bytes) -> str | None:
        """Name of the key that this is; None when it is none of them."""
        self._refresh()
        digest = hashlib.sha256(presented).digest()
        found = None
        # All of them, whichever it is: the time tells nothing.
        for name, known in self._hashes.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        try:
            version = _version(self._folder)
            if version == self._version:
                return
            self._hashes = _read(self._folder)
        except ApiKeysError as error:
            # The ones we have go on: a fault of the node must not lock everybody out.
            _log.warning("API keys were not read again: %s", error)
            return
        self._version = version
        log_event(_log, "API keys read again", count=len(self._hashes))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ApiKeysError(f"{_SETTING}: {folder} cannot be read: {error.strerror}") from error


def _version(folder: Path) -> tuple[object, ...]:
    """Other keys, another version."""
    found = []
    for path in _files(folder):
        try:
            status = path.stat()
        except OSError as error:
            raise ApiKeysError(f"{path} cannot be read: {error.strerror}") from error
        found.append((path.name, status.st_ino, status.st_mtime_ns, status.st_size))
    if len(found) > _MOST_KEYS:
        _log.warning("%s: only the first %d keys count", folder, _MOST_KEYS)
    return tuple(found)


def _read(folder: Path) -> dict[str, bytes]:
    """Hash by name. A file that holds no key is passed over, so that the others' changes count."""
    hashes = {}
    for path in _files(folder)[:_MOST_KEYS]:
        if (key := _key_in(path)) is not None:
            hashes[path.name] = hashlib.sha256(key).digest()
        else:
            _log.warning("%s is empty or larger than %d bytes: no key", path, _LONGEST_KEY)
    return hashes


def _key_in(path: Path) -> bytes | None:
    """The key in a file; None where it holds none. Raises ApiKeysError."""
    try:
        with path.open("rb") as file:
            key = file.read(_LONGEST_KEY + 1).strip()
    except OSError as error:
        raise ApiKeysError(f"{path} cannot be read: {error.strerror}") from error
    return key if 0 < len(key) <= _LONGEST_KEY else None


def some_keys(folder: Path, most: int) -> list[bytes]:
    """The first keys by name, as another pod that has the same ones. Raises ApiKeysError."""
    found: list[bytes] = []
    for path in _files(folder)[:_MOST_KEYS]:
        key = _key_in(path) if len(found) < most else None
        if key is not None:
            found.append(key)
    if not found:
        raise ApiKeysError(f"{folder} holds no keys; add one to the Secret")
    return found
