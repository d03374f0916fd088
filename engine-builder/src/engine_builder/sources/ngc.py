"""Models in NVIDIA's NGC catalogue: `ngc://ORG[/TEAM]/MODEL:VERSION` with an API key.

The calls are those of the NGC API at api.ngc.nvidia.com: a version's files are listed with size
and sha256, and each is downloaded through a redirect to storage that is not shown the key. Keys
that begin with `nvapi-` are bearer tokens; older ones are first exchanged at authn.nvidia.com.

The revision is the tree hash of the needed files, as it is for a directory with the same files.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from engine_builder.errors import StageError
from engine_builder.progress import Progress
from engine_builder.sources.listed import RemoteFile, check_count
from engine_builder.sources.selection import NESTED
from engine_builder.sources.tree import MAX_FILES
from engine_builder.transfer import Place, Wanted, download, new_client, read_json
from reranker_contracts import StageReason, tree_digest_of

#: Other addresses: a mirror inside the network.
API_VARIABLE, AUTH_VARIABLE = "NGC_API_ENDPOINT", "NGC_AUTH_ENDPOINT"
_API, _AUTH = "https://api.ngc.nvidia.com", "https://authn.nvidia.com"
_PAGE = 100
_MAX_LISTING = 8 << 20
_MAX_TOKEN = 1 << 20


class Catalogue:
    """One version of a model."""

    def __init__(self, org: str, team: str | None, model: str, version: str) -> None:
        self._org, self._team, self._model = org, team, model
        place = f"{org}/{team}" if team else org
        self.about = f"ngc://{place}/{model}:{version}"
        api = os.environ.get(API_VARIABLE) or _API
        group = f"org/{org}/team/{team}" if team else f"org/{org}"
        self._base = f"{api.rstrip('/')}/v2/{group}/models/{model}/versions/{quote(version)}"
        self._place = Place(
            self.about,
            "NGC",
            "put an API key that may read it into the Secret of spec.model.secretRef",
            "check organisation, team, name and version in spec.model.source",
        )
        self._client: httpx.Client | None = None

    @property
    def name(self) -> str:
        """The model's name without organisation and version."""
        return self._model

    def files(self) -> Iterable[RemoteFile]:
        """Files at the top of the version, and NESTED ones, page by page."""
        seen = 0
        for page in range(MAX_FILES // _PAGE + 2):
            query = {"page-number": page, "page-size": _PAGE}
            answer = read_json(
                self._open(), f"{self._base}/files", self._place, _MAX_LISTING, params=query
            )
            entries = answer.get("modelFiles") if isinstance(answer, dict) else None
            if not isinstance(entries, list):
                raise self._place.unreachable("with a list of files")
            seen += len(entries)
            check_count(self.about, seen)
            yield from self._parsed(entries)
            if not entries or seen >= _total(answer):
                return

    def revision_of(self, files: Iterable[RemoteFile]) -> str:
        """The tree hash of the files."""
        return tree_digest_of((file.name, file.mark) for file in files)

    def download(self, file: RemoteFile, target: Path, progress: Progress) -> None:
        """Download one file and check its sha256."""
        download(
            self._open(),
            f"{self._base}/files/{quote(file.name)}",
            target,
            Wanted(file.name, limit=file.size, size=file.size, sha256=file.mark),
            place=self._place,
            progress=progress,
        )

    def _parsed(self, entries: list[Any]) -> Iterator[RemoteFile]:
        for entry in entries:
            path = entry.get("path") if isinstance(entry, dict) else None
            if not isinstance(path, str) or ("/" in path and path not in NESTED):
                continue
            size, digest = entry.get("sizeInBytes"), _hex(entry.get("sha256_base64"))
            if not isinstance(size, int) or size < 0 or digest is None:
                raise StageError(
                    StageReason.SOURCE_UNSUPPORTED,
                    f"{self.about}: NGC lists {path[:100]} without size or sha256; upload the "
                    "version again with the NGC command line",
                )
            yield RemoteFile(path, size, digest)

    def _open(self) -> httpx.Client:
        """The client with the key's token; made at the first call."""
        if self._client is None:
            tls_only = self._base.startswith("https://")
            key = os.environ.get("NGC_API_KEY")
            token = key if not key or key.startswith("nvapi-") else self._exchanged(key)
            self._client = new_client(_Bearer(token) if token else None, tls_only=tls_only)
        return self._client

    def _exchanged(self, key: str) -> str:
        """A session's token for a key of the older kind."""
        server = os.environ.get(AUTH_VARIABLE) or _AUTH
        scope = f"group/ngc:{self._org}"
        if self._team:
            scope += f"/{self._team}"
        with new_client(
            httpx.BasicAuth("$oauthtoken", key), tls_only=server.startswith("https://")
        ) as client:
            answer = read_json(
                client,
                f"{server.rstrip('/')}/token",
                self._place,
                _MAX_TOKEN,
                params={"service": "ngc", "scope": scope},
            )
        token = answer.get("token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            raise self._place.unreachable("with a token")
        return token


class _Bearer(httpx.Auth):
    """The client takes the header off where a redirect leads to another host."""

    def __init__(self, token: str) -> None:
        self._header = f"Bearer {token}"

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:  # type: ignore[override]
        request.headers["Authorization"] = self._header
        yield request


def _hex(value: object) -> str | None:
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        return None
    return data.hex() if len(data) == 32 else None


def _total(answer: dict[str, Any]) -> int:
    info = answer.get("paginationInfo")
    total = info.get("totalResults") if isinstance(info, dict) else None
    return total if isinstance(total, int) else 0
