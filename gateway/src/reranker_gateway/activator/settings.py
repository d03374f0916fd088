"""Settings of the activator: those of the gateway that concern it, and its own."""

from pydantic import Field

from reranker_gateway.settings import Settings


class ActivatorSettings(Settings):
    """As the gateway's, with the prefix `RERANKER_`; what an engine decides is not used."""

    backend_url: str = Field(
        pattern=r"^https?://[^/]+$", description="where the pods answer: http(s)://host:port"
    )
    backend_grpc: str | None = Field(
        None, description="the same for gRPC, host:port; needed where dialects have grpc"
    )
    hold_seconds: float = Field(
        120, gt=0, description="longest time that a request is held; then 503 with Retry-After"
    )
    max_held: int = Field(512, ge=1, description="requests at a time; over it 429")
    max_held_bytes: int = Field(
        64 << 20, ge=1024, description="bytes of all bodies; those under 256 KiB have 4 MiB more"
    )
    cold_start_seconds: float | None = Field(
        None, gt=0, description="time of a cold start as it was measured before; then it is learnt"
    )
    connection_age_seconds: float = Field(
        10, gt=0, description="over gRPC, whose clients would stay; over HTTP an answer ends one"
    )
    max_connections: int = Field(1024, ge=1, description="on each port")
