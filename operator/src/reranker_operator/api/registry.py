"""Where engines are shared between clusters: `spec.engine.registry`."""

from pydantic import Field

from reranker_operator.api.fields import Key, Name
from reranker_operator.api.meta import ApiModel
from reranker_operator.api.pods import CaBundle, ProxySpec

_COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
#: A repository without tag and digest: engines are told apart by the tag that is their digest.
REPOSITORY = (
    rf"^oci://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{{1,5}})?/{_COMPONENT}(/{_COMPONENT})*$"
)


class SignKey(ApiModel):
    """A private key in a Secret of the same namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: Key = Field(
        default="cosign.key",
        description="Key inside it: ECDSA P-256 or Ed25519, PKCS#8 in PEM.",
    )
    password_key: Key | None = Field(
        default=None, description="Key inside it that has the private key's password."
    )


class PublicKeyFile(ApiModel):
    """One key of a ConfigMap or Secret."""

    name: Name = Field(description="Name of the object.")
    key: Key = Field(default="cosign.pub", description="Key inside it, a public key in PEM.")


class RequireSigned(ApiModel):
    """The public key of whom engines of the registry are taken."""

    config_map: PublicKeyFile | None = Field(default=None, description="In this ConfigMap.")
    secret: PublicKeyFile | None = Field(default=None, description="In this Secret.")

    @property
    def title(self) -> str:
        """Names the key, never its contents."""
        found = self.config_map or self.secret
        kind = "ConfigMap" if self.config_map else "Secret"
        return f"{kind}/{found.name}/{found.key}" if found else ""


class RegistrySpec(ApiModel):
    """An OCI registry with finished engines: one cluster builds, others take what it made."""

    repository: str = Field(
        max_length=512,
        pattern=REPOSITORY,
        description="oci://HOST/REPOSITORY without a tag. An engine's tag is its digest.",
    )
    pull: bool = Field(
        default=True, description="Take an engine from there, if it is there, instead of building."
    )
    push: bool = Field(default=False, description="Bring engines there that were built here.")
    build: bool = Field(
        default=True,
        description="Build what can't be had from there. false: wait until it can be had.",
    )
    secret_name: Name | None = Field(
        default=None,
        description="Secret of type kubernetes.io/dockerconfigjson with the registry's login.",
    )
    plain_http: bool = Field(default=False, description="Speak to the registry without TLS.")
    sign_key: SignKey | None = Field(
        default=None, description="Sign what is pushed with this private key."
    )
    require_signed: RequireSigned | None = Field(
        default=None, description="Take only engines that are signed with this key."
    )


class EngineRegistry(RegistrySpec):
    """The registry of an engine, and the way there."""

    proxy: ProxySpec | None = Field(default=None, description="The way out of the cluster.")
    ca_bundle: CaBundle | None = Field(default=None, description="Authorities to trust.")
    references: str | None = Field(
        default=None,
        description="Hash of the versions of the Secrets and ConfigMaps that are named here.",
    )
