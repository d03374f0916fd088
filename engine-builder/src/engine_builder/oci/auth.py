"""Who we are to a registry: credentials of `docker login`, exchanged for tokens where it asks so.

The flow of tokens is that of the Distribution project's token specification
(https://distribution.github.io/distribution/spec/auth/token/).
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import httpx

from engine_builder.errors import UsageError

_MAX_BYTES = 1 << 20
_CHALLENGE = re.compile(r"\s*(?P<scheme>[A-Za-z]+)\s+(?P<rest>.*)", re.DOTALL)
_PARAMETER = re.compile(r'([A-Za-z]+)="([^"]*)"')
_DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, repr=False)
class Credentials:
    """User and password, or a token in the password's place."""

    user: str
    password: str

    @property
    def basic(self) -> str:
        """Value of the Authorization header."""
        joined = f"{self.user}:{self.password}".encode()
        return "Basic " + base64.b64encode(joined).decode("ascii")


def docker_config() -> Path:
    """Where `docker login` leaves its file: $DOCKER_CONFIG or ~/.docker."""
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def find_credentials(host: str, path: Path | None) -> Credentials | None:
    """The entry of `host` in a Docker configuration; None when there is none.

    `path` None means the usual place, which need not exist. Raises UsageError for a file that
    can't be used, or that leaves the answer to a helper program.
    """
    config = _read(path or docker_config(), required=path is not None)
    helpers = config.get("credHelpers")
    if isinstance(helpers, dict) and host in helpers:
        raise UsageError(
            f"{path or docker_config()}: leaves {host} to a credential helper, which is not run; "
            "give --registry-config a file with the entry in `auths`"
        )
    auths = config.get("auths")
    if not isinstance(auths, dict):
        return None
    for name in (host, f"https://{host}", f"http://{host}", _hub_name(host)):
        entry = auths.get(name)
        if isinstance(entry, dict):
            found = _entry(entry)
            if found:
                return found
    return None


def _hub_name(host: str) -> str:
    return _DOCKER_HUB if host in ("docker.io", "registry-1.docker.io") else host


def _entry(entry: dict[str, object]) -> Credentials | None:
    user, password, joined = entry.get("username"), entry.get("password"), entry.get("auth")
    if isinstance(user, str) and isinstance(password, str):
        return Credentials(user, password)
    if isinstance(joined, str) and joined:
        try:
            user, _, password = base64.b64decode(joined).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        return Credentials(user, password.rstrip("\0"))
    return None


def _read(path: Path, *, required: bool) -> dict[str, object]:
    try:
        with path.open("rb") as stream:
            value = json.loads(stream.read(_MAX_BYTES))
    except FileNotFoundError:
        if required:
            raise UsageError(f"--registry-config {path}: there is no such file") from None
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is no Docker configuration ({type(error).__name__})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: is no Docker configuration")
    return value


class RegistryAuth(httpx.Auth):
    """Answers a registry's challenge; a token is kept for the requests that follow."""

    def __init__(
        self, credentials: Credentials | None, scope: str, *, plain_http: bool = False
    ) -> None:
        self._credentials = credentials
        self._scope = scope
        self._plain_http = plain_http
        self._header: str | None = None

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send, and once more with what the challenge asks for; a blob's answer is not read."""
        if self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        # A blob may be somewhere else, and who has it there is nobody to us.
        elsewhere = response.url.netloc != request.url.netloc
        if response.status_code != 401 or elsewhere:
            return
        header = None
        scheme, parameters = _challenge(response.headers.get("WWW-Authenticate", ""))
        if scheme == "basic" and self._credentials:
            header = self._credentials.basic
        elif scheme == "bearer" and self._may_ask(parameters.get("realm", "")):
            answer = yield self._token_request(parameters)
            header = _bearer(answer)
        if header is None or header == self._header:
            return
        self._header = request.headers["Authorization"] = header
        yield request

    def _may_ask(self, realm: str) -> bool:
        """A password never goes over plain HTTP unless the registry itself is spoken to so."""
        return realm.startswith("https://") or (self._plain_http and realm.startswith("http://"))

    def _token_request(self, parameters: dict[str, str]) -> httpx.Request:
        query = {"scope": parameters.get("scope") or self._scope}
        if parameters.get("service"):
            query["service"] = parameters["service"]
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        url = httpx.URL(parameters["realm"]).copy_merge_params(query)
        return httpx.Request("GET", url, headers=headers)


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    match = _CHALLENGE.fullmatch(header[:4096])
    if match is None:
        return "", {}
    values = {name.lower(): value for name, value in _PARAMETER.findall(match["rest"])}
    return match["scheme"].lower(), values


def _bearer(response: httpx.Response) -> str | None:
    if not response.is_success:
        return None
    try:
        value = json.loads(response.read()[:_MAX_BYTES])
    except (ValueError, RecursionError):
        return None
    token = None
    if isinstance(value, dict):
        token = value.get("token") or value.get("access_token")
    return f"Bearer {token}" if isinstance(token, str) else None
