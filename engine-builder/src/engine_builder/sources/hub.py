"""Models on a Hugging Face hub (HF_ENDPOINT) with an optional token (HF_TOKEN).

A branch or tag is fixed to its commit; files are downloaded at that commit and checked against the
hashes that the hub lists for it.
"""

import hashlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from huggingface_hub import HfApi, RepoFile, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFolder
from huggingface_hub.utils._http import default_client_factory

from engine_builder.config_files import LOGIT_SCORE_FOLDER
from engine_builder.errors import StageError, UsageError
from engine_builder.files import check_size, read_metadata
from engine_builder.progress import Progress, human_size
from engine_builder.sources.base import Snapshot
from engine_builder.sources.selection import (
    INDEX,
    Content,
    Selection,
    check_total,
    select_files,
)
from engine_builder.sources.tree import MAX_FILES
from engine_builder.transfer import bound, usable_proxies
from reranker_contracts import StageReason

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK = 1 << 20
#: Bytes of an answer that is no file, and what may come beyond a file's own bytes: other encodings.
_MAX_ANSWER = 16 << 20
_MORE = 1 << 16
#: Answers to one question, a listing's pages among them.
_MAX_ANSWERS = 1000


@dataclass
class _Reading:
    """What the hub's client, which is one for the whole process, reads now."""

    about: str = ""
    #: Bytes of the file that is downloaded, if one is.
    file: int | None = None
    answers: int = 0


_reading = _Reading()


def _new_client() -> httpx.Client:
    with usable_proxies():
        client = default_client_factory()
    client.headers["Accept-Encoding"] = "identity"
    client.event_hooks = {**client.event_hooks, "response": [_bound]}
    return client


def _bound(response: httpx.Response) -> None:
    if _reading.file is not None:
        bound(response, _reading.file + _MORE)
        return
    _reading.answers += 1
    if _reading.answers > _MAX_ANSWERS:
        raise _senseless(_reading.about)
    # Little of it could become much.
    response.headers.pop("Content-Encoding", None)
    bound(response, _MAX_ANSWER)


class HubSource:
    """One repository on the hub."""

    def __init__(self, repo: str, revision: str | None, content: Content = "model") -> None:
        self._repo = repo
        self._revision = revision
        self._content = content
        set_client_factory(_new_client)
        self._api = HfApi(
            endpoint=os.environ.get("HF_ENDPOINT") or None,
            token=os.environ.get("HF_TOKEN") or None,
        )

    @property
    def name(self) -> str:
        """`organisation/name`."""
        return self._repo

    def resolve(self, revision: str | None, scratch: Path) -> Snapshot:
        """Fix branch or tag to a commit and download the configuration files."""
        if revision and self._revision and revision != self._revision:
            raise UsageError(
                f"--revision {revision} contradicts @{self._revision} in --source; give one"
            )
        wanted = revision or self._revision
        with self._explained(wanted):
            commit = self._api.model_info(self._repo, revision=wanted).sha or ""
            if not isinstance(commit, str):
                raise TypeError("sha")
        if not _COMMIT.fullmatch(commit):
            raise StageError(
                StageReason.REVISION_NOT_FOUND,
                f"{self._about(wanted)}: the hub names no commit; check spec.model.revision",
            )
        files = self._files(commit)
        for name in self._select(commit, files, scratch).metadata:
            self._download(commit, files[name], scratch)
        return Snapshot(revision=commit, metadata=scratch)

    def fetch(self, revision: str, out: Path, progress: Progress) -> None:
        """Download the needed files of a commit."""
        if not _COMMIT.fullmatch(revision):
            raise UsageError(f"--revision {revision}: give the 40 digits of a commit (see resolve)")
        files = self._files(revision)
        names = self._select(revision, files, out).all
        check_total({name: files[name].size for name in names})
        for name in names:
            with progress.step(f"downloading {name} ({human_size(files[name].size)})"):
                self._download(revision, files[name], out)
        # Left by the hub's client beside what it downloads.
        shutil.rmtree(out / ".cache", ignore_errors=True)

    def _files(self, commit: str) -> dict[str, RepoFile]:
        """Those at the top level and in the one folder below it that may be needed."""
        top = self._listed(commit, None)
        below = []
        if any(entry.path == LOGIT_SCORE_FOLDER for entry in top):
            below = self._listed(commit, LOGIT_SCORE_FOLDER)
        return {entry.path: entry for entry in [*top, *below] if isinstance(entry, RepoFile)}

    def _listed(self, commit: str, folder: str | None) -> list[RepoFile | RepoFolder]:
        with self._explained(commit):
            tree = self._api.list_repo_tree(self._repo, folder, revision=commit)
            # Page by page: a listing without end would never be all here.
            entries = list(itertools.islice(tree, MAX_FILES + 1))
            for entry in entries:
                _check(entry)
        if len(entries) > MAX_FILES:
            raise StageError(
                StageReason.MODEL_INVALID,
                f"{self._about(commit)} holds more than {MAX_FILES} files; use a repository of the "
                "model alone",
            )
        return entries

    def _select(self, commit: str, files: dict[str, RepoFile], folder: Path) -> Selection:
        def read_index() -> bytes:
            return read_metadata(self._download(commit, files[INDEX], folder))

        return select_files(files, read_index, self._content)

    def _download(self, commit: str, file: RepoFile, folder: Path) -> Path:
        check_size(file.path, file.size)
        with self._explained(commit, file.size):
            path = Path(
                self._api.hf_hub_download(
                    self._repo, file.path, revision=commit, local_dir=folder, force_download=False
                )
            )
        if _hub_hash(path, file) != (file.lfs.sha256 if file.lfs else file.blob_id):
            raise StageError(
                StageReason.SOURCE_CHANGED,
                f"{self._about(commit)}: {file.path} is not what the hub lists for this commit; "
                "check the proxy or mirror in between",
            )
        return path

    def _about(self, revision: str | None) -> str:
        return f"hf://{self._repo}" + (f"@{revision}" if revision else "")

    @contextmanager
    def _explained(self, revision: str | None, size: int | None = None) -> Iterator[None]:
        """Translate the hub client's errors; with a `size`, of a download."""
        about = self._about(revision)
        _reading.about, _reading.file, _reading.answers = about, size, 0
        try:
            yield
        except LocalEntryNotFoundError as error:
            # The client's name for a download that failed without a cached copy to fall back on.
            raise _unreachable(about, error.__cause__ or error) from error
        except RevisionNotFoundError as error:
            raise StageError(
                StageReason.REVISION_NOT_FOUND,
                f"{about}: the model is there, this revision of it is not; set "
                "spec.model.revision to a branch, tag or commit of it",
            ) from error
        except EntryNotFoundError as error:
            raise StageError(
                StageReason.SOURCE_NOT_FOUND,
                f"{about}: a file that the hub lists is not there; check spec.model.revision",
            ) from error
        except GatedRepoError as error:
            raise StageError(
                StageReason.MODEL_GATED,
                f"{about}: access is gated; accept the model's terms on the hub and put a token of "
                "that account into the Secret of spec.model.secretRef",
            ) from error
        except HfHubHTTPError as error:
            raise _http_failure(about, error) from error
        except (httpx.HTTPError, httpx.InvalidURL, ConnectionError, TimeoutError) as error:
            raise _unreachable(about, error) from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise _senseless(about) from error
        except OSError as error:
            # The client's own, for a file of another size, has no number.
            if error.errno is not None:
                raise
            raise StageError(
                StageReason.SOURCE_CHANGED,
                f"{about}: a file has another size than the hub lists for this commit; check the "
                "proxy or mirror in between",
            ) from error


def _unreachable(about: str, error: BaseException) -> StageError:
    return StageError(
        StageReason.SOURCE_UNREACHABLE,
        f"{about}: the hub cannot be reached ({type(error).__name__}); check the network, "
        "spec.proxy and hubEndpoint in the values of the operator's chart",
    )


def _senseless(about: str) -> StageError:
    return StageError(
        StageReason.SOURCE_UNREACHABLE,
        f"{about}: the hub's answer makes no sense; check hubEndpoint in the values of the "
        "operator's chart, and the proxy or mirror in between",
    )


def _check(entry: RepoFile | RepoFolder) -> None:
    """The client takes any JSON for a file."""
    if isinstance(entry, RepoFile):
        mark = entry.lfs.sha256 if entry.lfs else entry.blob_id
        if not (isinstance(entry.path, str) and isinstance(mark, str)):
            raise TypeError("path or hash")
        if not isinstance(entry.size, int) or entry.size < 0:
            raise TypeError("size")


def _http_failure(about: str, error: HfHubHTTPError) -> StageError:
    status = error.response.status_code
    token = "the token in spec.model.secretRef" if os.environ.get("HF_TOKEN") else "no token"
    if status in (401, 403):
        return StageError(
            StageReason.SOURCE_UNAUTHORIZED,
            f"{about}: does not exist or may not be read with {token}; check the name, or set "
            "spec.model.secretRef to a token that may read it",
        )
    if status == 404 or isinstance(error, RepositoryNotFoundError):
        return StageError(
            StageReason.SOURCE_NOT_FOUND,
            f"{about}: there is no such model; check the name in spec.model.source",
        )
    return StageError(
        StageReason.SOURCE_UNREACHABLE,
        f"{about}: the hub answered HTTP {status}; check the hub and the proxy in between",
    )


def _hub_hash(path: Path, file: RepoFile) -> str:
    """sha256 of a large file, git's blob hash of a small one."""
    if file.lfs is None:
        header = b"blob %d\0" % path.stat().st_size
        digest = hashlib.sha1(header, usedforsecurity=False)
    else:
        digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
