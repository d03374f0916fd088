"""Environment variables of NVIDIA's Reranking NIM that mean a setting of ours.

Sources: the pages "Environment Variables" of 1.x, 2.0 and 2.3, which renamed many of them, and what
NVIDIA's NIM Operator gives its pods. A variable with our own name comes before one of these. What
is not here has no counterpart: docs/api-dialects.md tells why.
"""

from collections.abc import Mapping
from typing import Final

#: Variable, and the setting that it is. Newer names come first: the first one that is set counts.
VARIABLES: Final = (
    ("NIM_SERVER_BIND_ADDR", "host:http_port"),
    ("NIM_BIND_ADDR", "host:http_port"),
    ("NIM_SERVER_PORT", "http_port"),
    ("NIM_HTTP_API_PORT", "http_port"),
    ("NIM_SERVER_GRPC_BIND_ADDR", ":grpc_port"),
    ("NIM_GRPC_BIND_ADDR", ":grpc_port"),
    ("NIM_GRPC_API_PORT", "grpc_port"),
    ("NIM_TRITON_GRPC_PORT", "grpc_port"),
    ("NIM_TRITON_METRICS_PORT", "metrics_port"),
    ("NIM_SERVER_SERVED_MODEL_NAME", "served_name"),
    ("NIM_SERVED_MODEL_NAME", "served_name"),
    ("NIM_SERVER_REQUEST_TIMEOUT_S", "request_timeout_seconds"),
    ("NIM_REQUEST_TIMEOUT_S", "request_timeout_seconds"),
    ("NIM_SERVER_GRPC_MAX_DECODING_MESSAGE_BYTES", "grpc_max_message_bytes"),
    ("NIM_NUM_TOKENIZERS", "tokenizer_threads"),
    ("NIM_LOG_LEVEL", "log_level"),
)
#: Names of log levels that ours does not have.
_LEVELS: Final = {"TRACE": "DEBUG", "WARN": "WARNING", "CRITICAL": "ERROR", "OFF": "ERROR"}


def nim_settings(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Settings that the environment holds by NIM's names: value and variable of each."""
    found: dict[str, tuple[str, str]] = {}
    for variable, target in VARIABLES:
        value = environment.get(variable, "").strip()
        if not value:
            continue
        if target == "log_level":
            value = _LEVELS.get(value.upper(), value.upper())
        host_field, _, field = target.rpartition(":")
        host, colon, port = value.rpartition(":")
        if ":" not in target:
            found.setdefault(field, (value, variable))
        elif colon:
            found.setdefault(field, (port, variable))
            if host_field and host:
                found.setdefault(host_field, (host.strip("[]"), variable))
        else:
            # No address with a port: what it is shows up in the message of the refusal.
            found.setdefault(field, (value, variable))
    return found
