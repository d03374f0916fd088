"""Who may ask, and over what: API keys and TLS of the serving pods.

Both are Secrets of the service's namespace that are mounted by name: the operator never reads
them. Pods take up a change by themselves, so that it starts no rollout.
"""

from pydantic import Field

from reranker_operator.api.fields import Name
from reranker_operator.api.meta import ApiModel


class SecretName(ApiModel):
    """A Secret of the same namespace."""

    name: Name = Field(description="Name of the Secret.")


class AuthSpec(ApiModel):
    """API keys, as `Authorization: Bearer KEY` or `x-api-key: KEY`."""

    secret_ref: SecretName = Field(
        description="A Secret each of whose entries is a key; the entry's name is the caller's. "
        "Entries come and go without a restart."
    )


class TlsSpec(ApiModel):
    """TLS on ports 8000 and 8001; metrics and probes on port 8002 stay plain HTTP."""

    secret_name: Name = Field(
        description="A Secret of type kubernetes.io/tls. A renewed certificate is taken up "
        "without a restart."
    )


class SecuritySettings(ApiModel):
    """Both, as part of how pods serve."""

    auth: AuthSpec | None = Field(
        default=None, description="API keys that callers must show. Default: none are asked for."
    )
    tls: TlsSpec | None = Field(default=None, description="TLS of the API. Default: plain HTTP.")

    @property
    def scheme(self) -> str:
        """What the pods' port 8000 speaks; 8001 has TLS with it."""
        return "http" if self.tls is None else "https"
