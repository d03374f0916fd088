"""Models in a bucket of S3 or of anything that speaks its protocol.

Endpoint, region and keys come from the usual variables (AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or a web identity). Without keys
requests are not signed, as for a public bucket; the node's own role is never asked for.

The revision is a hash over server, bucket and the objects' ETags, and every read says which ETag
it means, so what is fetched is what was resolved.
"""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from engine_builder import transfer
from engine_builder.errors import StageError
from engine_builder.progress import Progress
from engine_builder.sources.listed import RemoteFile, check_count
from engine_builder.sources.selection import NESTED
from reranker_contracts import StageReason

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig

#: Bytes of one request: what is lost when the connection breaks.
_CHUNK = 16 << 20
#: Of MAX_FILES objects; pages without any could follow each other for ever.
_LISTING_SECONDS = 300
_STATUS = re.compile(r"status code: (\d{3})")
_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class Bucket:
    """A folder of a bucket."""

    def __init__(self, bucket: str, prefix: str, name: str) -> None:
        self._name, self._bucket = name, bucket
        self.about = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._has_keys = any(os.environ.get(key) for key in _KEYS)
        try:
            self._store = S3Store(
                bucket,
                prefix=prefix or None,
                skip_signature=not self._has_keys,
                client_options=_client_options(),
                # The tries are ours, with our bounds.
                retry_config={"max_retries": 0},
            )
        except BaseError as error:
            raise StageError(
                StageReason.SOURCE_UNAUTHORIZED,
                f"{self.about}: keys or endpoint are incomplete or malformed; give "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the Secret of "
                "spec.model.secretRef, and spec.model.endpoint as https://HOST[:PORT]",
            ) from error

    @property
    def name(self) -> str:
        """Last part of the URI."""
        return self._name

    def files(self) -> Iterable[RemoteFile]:
        """Objects whose key has no further slash, and the few that are looked for in folders."""
        with self._explained():
            return asyncio.run(self._listed())

    async def _listed(self) -> list[RemoteFile]:
        seen, files = 0, []
        async with asyncio.timeout(_LISTING_SECONDS):
            async for page in obstore.list(self._store, chunk_size=1000):
                seen += len(page)
                check_count(self.about, seen)
                for entry in page:
                    if "/" not in entry["path"] or entry["path"] in NESTED:
                        mark = entry["e_tag"]
                        if not mark:
                            raise _no_marks(self.about)
                        files.append(RemoteFile(entry["path"], entry["size"], mark))
        return files

    def revision_of(self, files: Iterable[RemoteFile]) -> str:
        """`etags:` and the sha256 over the server, the bucket, and lines of ETag, size and name.

        An ETag is what a server says, not a hash that can be checked. So another server can't pass
        other files off as those that somebody has built from.
        """
        lines = sorted(f"{file.mark} {file.size} {file.name}\n" for file in files)
        lines.insert(0, f"{_endpoint()}\n{self._bucket}\n")
        return f"etags:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"

    def download(self, file: RemoteFile, target: Path, progress: Progress) -> None:
        """Read an object piece by piece, each of exactly the listed ETag."""
        with target.open("wb") as stream:
            for start in range(0, file.size, _CHUNK):
                stream.write(self._piece(file, start, min(start + _CHUNK, file.size)))
                progress.tick(
                    start // 1_000_000, max(1, file.size // 1_000_000), f"MB of {file.name}"
                )

    def _piece(self, file: RemoteFile, start: int, end: int) -> bytes:
        for left in reversed(range(transfer.TRIES)):
            with self._explained():
                try:
                    answer = obstore.get(
                        self._store,
                        file.name,
                        options={"if_match": file.mark, "range": (start, end)},
                    )
                    data = _beginning(answer, end - start + 1)
                except (PermissionDeniedError, PreconditionError, UnauthenticatedError):
                    raise
                except BaseError:
                    if not left:
                        raise
                else:
                    if len(data) == end - start:
                        return data
            time.sleep(transfer.RETRY_SECONDS)
        raise StageError(
            StageReason.SOURCE_UNREACHABLE,
            f"{self.about}: {file.name} comes in other than the bytes asked for; check the server "
            "and the proxy in between",
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Translate the library's errors, whose texts may hold addresses with signatures."""
        try:
            yield
        except PreconditionError as error:
            raise StageError(
                StageReason.SOURCE_CHANGED,
                f"{self.about}: an object was replaced since it was listed; resolve the model "
                "again",
            ) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._refused() from error
        except FileNotFoundError as error:
            raise self._missing() from error
        except TimeoutError as error:
            raise self._unreachable(error) from error
        except BaseError as error:
            # For listings the library has no types of their own for these.
            status = _STATUS.search(str(error))
            if status and status[1] in ("401", "403"):
                raise self._refused() from error
            if status and status[1] == "404":
                raise self._missing() from error
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> StageError:
        return StageError(
            StageReason.SOURCE_UNREACHABLE,
            f"{self.about}: the server cannot be reached ({type(error).__name__}); check "
            "spec.model.endpoint, the network, spec.proxy and spec.caBundle",
        )

    def _refused(self) -> StageError:
        keys = "those in spec.model.secretRef" if self._has_keys else "none were given"
        return StageError(
            StageReason.SOURCE_UNAUTHORIZED,
            f"{self.about}: the keys may not list and read it ({keys}); give keys that may in the "
            "Secret of spec.model.secretRef",
        )

    def _missing(self) -> StageError:
        return StageError(
            StageReason.SOURCE_NOT_FOUND,
            f"{self.about}: there is no such bucket or object; check spec.model.source and "
            "spec.model.endpoint",
        )


def _beginning(answer: "GetResult", limit: int) -> bytes:
    """At most `limit` bytes of an answer."""
    data = bytearray()
    for chunk in answer.stream(min_chunk_size=1 << 20):
        data += bytes(chunk)
        if len(data) >= limit:
            break
    return bytes(data[:limit])


def _client_options() -> "ClientConfig":
    options: ClientConfig = {
        "connect_timeout": timedelta(seconds=15),
        "timeout": timedelta(seconds=300),
        "user_agent": "reranker-engine-builder",
        # Only a server that is named so is spoken to without TLS.
        "allow_http": _endpoint().startswith("http://"),
    }
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).is_file():
        options["root_certificate"] = Path(bundle).read_bytes()
    return options


def _endpoint() -> str:
    """The server's address; empty for AWS."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return named.rstrip("/")


def _no_marks(about: str) -> StageError:
    return StageError(
        StageReason.SOURCE_UNSUPPORTED,
        f"{about}: the server lists objects without ETags; use one that has them, or pvc://",
    )
