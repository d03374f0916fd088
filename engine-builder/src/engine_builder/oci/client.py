"""A client of one repository in a registry: OCI Distribution Specification v1.1."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from engine_builder.errors import StageError
from engine_builder.oci.auth import RegistryAuth, find_credentials
from engine_builder.oci.reference import Reference
from engine_builder.progress import Progress
from engine_builder.transfer import (
    Place,
    Reasons,
    Wanted,
    download,
    explained,
    new_client,
    read_body,
    stream,
)
from reranker_contracts import StageReason

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
#: Bytes of an OCI manifest; registries allow 4 MiB.
MAX_MANIFEST = 4 << 20
#: Bytes of a blob in one request, so that a broken upload goes on near where it broke.
CHUNK = 16 << 20
_UPLOAD_TRIES = 5
_REASONS = Reasons(
    unreachable=StageReason.REGISTRY_UNREACHABLE,
    unauthorized=StageReason.REGISTRY_UNAUTHORIZED,
    not_found=StageReason.ARTEFACT_NOT_FOUND,
)


class Registry:
    """Reads and writes blobs and manifests of one repository."""

    def __init__(
        self,
        reference: Reference,
        *,
        config: Path | None = None,
        plain_http: bool = False,
        writes: bool = False,
    ) -> None:
        scheme = "http" if plain_http else "https"
        self._base = f"{scheme}://{reference.host}/v2/{reference.repository}"
        scope = f"repository:{reference.repository}:pull" + (",push" if writes else "")
        credentials = find_credentials(reference.host, config)
        auth = RegistryAuth(credentials, scope, plain_http=plain_http)
        self._client = new_client(auth, tls_only=not plain_http)
        have = "the credentials given may not do this" if credentials else "none were given"
        self.place = Place(
            str(reference),
            "the registry",
            f"{have}: `docker login {reference.host}`, or give --registry-config (in a cluster "
            "spec.engine.registry.secretName)",
            "check repository and tag",
            _REASONS,
        )

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def manifest(self, version: str) -> tuple[bytes, str]:
        """Bytes of the manifest with this tag or digest, and their digest."""
        headers = {"Accept": MANIFEST_TYPE}
        with (
            explained(self.place),
            stream(self._client, f"{self._base}/manifests/{version}", headers=headers) as response,
        ):
            self._require(response)
            data = read_body(response, self.place, MAX_MANIFEST)
        digest = digest_of(data)
        if version.startswith("sha256:") and digest != version:
            raise self._mismatch(version, digest)
        return data, digest

    def small_blob(self, digest: str, limit: int) -> bytes:
        """A blob of at most `limit` bytes, checked against its digest."""
        with (
            explained(self.place),
            stream(self._client, f"{self._base}/blobs/{digest}") as response,
        ):
            self._require(response)
            data = read_body(response, self.place, limit)
        if digest_of(data) != digest:
            raise self._mismatch(digest, digest_of(data))
        return data

    def has_blob(self, digest: str) -> bool:
        """Whether the registry has it already."""
        with explained(self.place):
            response = self._client.head(f"{self._base}/blobs/{digest}")
        if response.status_code == 404:
            return False
        self._require(response)
        return True

    def fetch_blob(
        self, digest: str, size: int, name: str, target: Path, progress: Progress
    ) -> None:
        """Download a blob into `target`, going on from what is there."""
        wanted = Wanted(name, limit=size, size=size, sha256=digest.removeprefix("sha256:"))
        try:
            download(
                self._client,
                f"{self._base}/blobs/{digest}",
                target,
                wanted,
                place=self.place,
                progress=progress,
            )
        except StageError as error:
            if error.reason is not StageReason.SOURCE_CHANGED:
                raise
            raise self._mismatch(digest, "something else") from error

    def upload(self, path: Path, digest: str, name: str, progress: Progress) -> None:
        """Upload a file as a blob in chunks; a chunk that fails is sent again."""
        size = path.stat().st_size
        location = self._begin()
        with path.open("rb") as file:
            offset, furthest, fruitless = 0, 0, 0
            while offset < size:
                file.seek(offset)
                progress.tick(offset // 1_000_000, size // 1_000_000, f"MB of {name}")
                reached, location = self._send(location, file.read(CHUNK), offset)
                # What was lost and sent again is no progress.
                fruitless = 0 if reached > furthest else fruitless + 1
                furthest = max(furthest, reached)
                if fruitless >= _UPLOAD_TRIES:
                    raise self.place.unreachable("for an upload")
                offset = reached
        self._finish(location, digest)

    def put_small_blob(self, data: bytes) -> str:
        """Upload bytes as a blob, unless it is there; its digest."""
        digest = digest_of(data)
        if not self.has_blob(digest):
            _reached, location = self._send(self._begin(), data, 0)
            self._finish(location, digest)
        return digest

    def put_manifest(self, version: str, data: bytes) -> str:
        """Give the manifest a tag, or none but its own digest; its digest."""
        headers = {"Content-Type": MANIFEST_TYPE}
        with explained(self.place):
            response = self._client.put(
                f"{self._base}/manifests/{version}", content=data, headers=headers
            )
        self._require(response)
        return digest_of(data)

    def _begin(self) -> str:
        with explained(self.place):
            response = self._client.post(f"{self._base}/blobs/uploads/")
        self._require(response)
        return self._location(response)

    def _send(self, location: str, data: bytes, offset: int) -> tuple[int, str]:
        """One chunk; how far the registry has got, and where to go on."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{offset}-{offset + len(data) - 1}",
        }
        with explained(self.place):
            try:
                response = self._client.patch(location, content=data, headers=headers)
            except httpx.TransportError:
                return self._reached(location)
        if response.status_code == 416:
            return self._reached(location)
        self._require(response)
        return offset + len(data), self._location(response)

    def _reached(self, location: str) -> tuple[int, str]:
        """Ask the registry what has arrived."""
        with explained(self.place):
            response = self._client.get(location)
        self._require(response)
        _, _, last = response.headers.get("Range", "").rpartition("-")
        return (int(last) + 1 if last.isdecimal() and last != "0" else 0), self._location(response)

    def _finish(self, location: str, digest: str) -> None:
        url = httpx.URL(location).copy_merge_params({"digest": digest})
        with explained(self.place):
            response = self._client.put(url)
        self._require(response)

    def _location(self, response: httpx.Response) -> str:
        """Where an upload goes on; only the registry itself is believed with it."""
        with explained(self.place):
            url = response.request.url.join(response.headers.get("Location", ""))
        if urlsplit(str(url))[:2] != urlsplit(self._base)[:2]:
            raise self.place.unreachable(f"for an upload: it leads to {url.host[:100]}")
        return str(url)

    def _require(self, response: httpx.Response) -> None:
        if not response.is_success:
            raise self.place.refused(response.status_code)

    def _mismatch(self, wanted: str, found: str) -> StageError:
        return StageError(
            StageReason.CHECKSUM_MISMATCH,
            f"{self.place.about}: the registry gave {found} for {wanted}; check the mirror or "
            "proxy in between",
        )


def digest_of(data: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
