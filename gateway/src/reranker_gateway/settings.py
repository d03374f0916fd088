"""Settings of the gateway: environment variables with the prefix `RERANKER_`, checked at start."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from reranker_gateway.nim_environment import nim_settings

Port = Annotated[int, Field(ge=1, le=65535)]
#: APIs that can be switched off; `grpc` is KServe's, on a port of its own.
DialectName = Literal["nim", "cohere", "jina", "vllm", "tei", "infinity", "grpc"]
Name = Annotated[str, Field(min_length=1, max_length=128)]

S = TypeVar("S", bound="Settings")


class SettingsError(Exception):
    """A setting is wrong; the message names each variable, its value and what is allowed."""


class Settings(BaseSettings):
    """Everything that can be set. What the engine itself decides is not here."""

    model_config = SettingsConfigDict(
        env_prefix="RERANKER_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    engine_dir: Path = Field(Path("/engine"), description="a published engine")
    triton_url: str = Field("127.0.0.1:9001", description="Triton's gRPC address, host:port")
    triton_metrics_url: str = Field(
        "http://127.0.0.1:9002/metrics", description="merged into our metrics; empty: none"
    )
    served_name: Name | None = Field(None, description="model id; default: from model.json")
    aliases: Annotated[tuple[Name, ...], NoDecode] = Field(
        (), description="more accepted model ids, separated by commas"
    )
    dialects: Annotated[tuple[DialectName, ...], NoDecode] = Field(
        get_args(DialectName), min_length=1, description="APIs to serve, separated by commas"
    )
    truncate: Literal["NONE", "END"] = Field("NONE", description="default of `truncate`")
    long_passages: Literal["cut", "chunk"] = Field(
        "cut", description="what becomes of passages that are too long and may be shortened"
    )
    max_passages: int = Field(512, ge=1, description="passages in one request")
    max_body_bytes: int = Field(16 << 20, ge=1024, description="bytes of one request's body")
    token_budget: int | None = Field(
        None, ge=1, description="padded tokens in one batch; default: from the engine's manifest"
    )
    max_connections: int = Field(
        2048, ge=1, description="on each port; half of them may have a request in progress"
    )
    connection_age_seconds: float = Field(
        30,
        gt=0,
        description="then a client is told to connect anew, so that new pods get requests, too",
    )
    read_idle_seconds: float = Field(
        30, gt=0, description="longest pause within a body, longest time for a head"
    )
    read_timeout_seconds: float = Field(
        60, gt=0, description="longest time for a body, and for a client to take an answer"
    )
    max_queue_tokens: int = Field(262_144, ge=1, description="waiting tokens; over it 429")
    request_timeout_seconds: float | None = Field(
        None, gt=0, description="longest time of a request, whatever it asks for; then 504"
    )
    caller_header: str = Field(
        "X-Caller", description="header that names a caller, for fair shares; not with API keys"
    )
    api_keys_dir: Path | None = Field(
        None, description="a folder with one API key in each file; default: no keys are asked for"
    )
    tls_dir: Path | None = Field(
        None, description="a folder with tls.crt and tls.key; default: plain HTTP"
    )
    score_cache_entries: int = Field(
        0, ge=0, le=10_000_000, description="scores of former pairs to remember"
    )
    drain_delay_seconds: float = Field(
        5, ge=0, description="serve on after SIGTERM until endpoints have moved away"
    )
    drain_timeout_seconds: float = Field(
        60, ge=0, description="longest time from SIGTERM to the exit; keep it under the pod's grace"
    )
    doomed_file: Path | None = Field(
        None, description="appears during a drain when the process will be killed within a second"
    )
    revision: str = Field("", pattern=r"^[a-z0-9]{0,63}$", description="what this pod is one of")
    shadow_identity: str = Field(
        "", max_length=256, description="shows pods of one service to each other; not with API keys"
    )
    shadow_url: str | None = Field(
        None,
        pattern=r"^https?://[^/?#]+$",
        description="pods of the revision on its way, whose scores are compared with ours",
    )
    shadow_percent: float = Field(
        5, ge=0, le=100, description="share of the requests that are sent there, too"
    )
    tokenizer_threads: int = Field(1, ge=1, le=64, description="threads")
    infer_timeout_seconds: float = Field(300, gt=0, description="longest time of one batch")
    engine_patience_seconds: float = Field(
        20, ge=0, description="requests wait so long for a Triton that starts again"
    )
    host: str = Field("0.0.0.0", description="address of all listeners")  # noqa: S104
    http_port: Port = 8000
    grpc_port: Port = 8001
    grpc_max_message_bytes: int = Field(
        4 << 20, ge=1024, description="bytes of one gRPC request; eight may arrive at a time"
    )
    metrics_port: Port = 8002
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("aliases", "dialects", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("shadow_url")
    @classmethod
    def _needs_to_be_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and not info.data.get("revision"):
            raise ValueError("needs RERANKER_REVISION, by which a pod is told from its own kind")
        if value is not None and not (
            info.data.get("api_keys_dir") or info.data.get("shadow_identity")
        ):
            raise ValueError(
                "needs RERANKER_SHADOW_IDENTITY or RERANKER_API_KEYS_DIR, by which a pod is told "
                "from a stranger"
            )
        return value


def load_settings() -> "Settings":
    """As `read_settings`, of the gateway."""
    return read_settings(Settings)


def read_settings(kind: type[S]) -> S:
    """Read the environment. Raises SettingsError that lists every wrong or missing variable.

    NIM's variables count where ours are not set.
    """
    theirs = {
        field: found
        for field, found in nim_settings(os.environ).items()
        if not os.environ.get(_variable(field))
    }
    try:
        return kind(**{field: value for field, (value, _) in theirs.items()})  # type: ignore[arg-type]  # texts, as in the environment
    except ValidationError as error:
        entries = error.errors()
        wrong = {entry["loc"][0] for entry in entries if entry["type"] != "too_short"}
        # A list whose every entry is wrong counts as one that is empty, too.
        entries = [e for e in entries if e["type"] != "too_short" or e["loc"][0] not in wrong]
        raise SettingsError("\n".join(_describe(entry, theirs) for entry in entries)) from error


def _describe(entry: object, theirs: Mapping[str, tuple[str, str]]) -> str:
    assert isinstance(entry, dict)  # noqa: S101 (pydantic's TypedDict)
    field = str(entry["loc"][0])
    variable = theirs[field][1] if field in theirs else _variable(field)
    return f"{variable}={str(entry['input'])[:100]!r}: {entry['msg']}"


def _variable(field: str) -> str:
    return "RERANKER_" + field.upper()
