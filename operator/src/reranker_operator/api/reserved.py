"""Names, ports and paths of the serving pod that are ours; a test compares them with the pods."""

CONTAINERS = ("verify", "triton", "measure", "gateway")
VOLUMES = ("engine", "tmp", "shm", "ca-bundle", "api-keys", "tls")
PORTS = (8000, 8001, 8002, 9000, 9001, 9002)
PORT_NAMES = ("http", "grpc", "metrics")
#: Whatever lies at `/engine` was verified.
ENGINE_PATH = "/engine"
#: Where containers of ours have a volume, or would lose one.
PATHS = ("/engine", "/tmp", "/dev", "/dev/shm", "/etc/ca-bundle", "/etc/api-keys", "/etc/tls")  # noqa: S108 - paths in a pod
LABELS = tuple(
    f"app.kubernetes.io/{name}"
    for name in ("name", "instance", "component", "part-of", "managed-by")
)
PREFIX = "reranker.dev/"
#: Settings of the gateway that the operator makes from the spec, or that its ports depend on.
GATEWAY_ENV = tuple(
    f"RERANKER_{name}"
    for name in (
        "ENGINE_DIR", "TRITON_URL", "TRITON_METRICS_URL", "TRUNCATE", "MAX_PASSAGES",
        "MAX_QUEUE_TOKENS", "TOKEN_BUDGET", "SERVED_NAME", "ALIASES", "HOST", "HTTP_PORT",
        "GRPC_PORT", "METRICS_PORT", "DIALECTS", "DRAIN_TIMEOUT_SECONDS", "API_KEYS_DIR", "TLS_DIR",
        "LONG_PASSAGES", "DOOMED_FILE", "REVISION", "SHADOW_URL", "SHADOW_PERCENT",
        "SHADOW_IDENTITY",
    )
)  # fmt: skip
