"""Cross-field rules in CEL, by kind and schema path; each message says what to do.

The path is that of the schema node the rule stands on: `""` is the object's root, `spec.model` the
field of that name, `spec.list[]` each entry of a list. Names are limited so that everything derived
from them stays within 63 characters.
"""

from dataclasses import dataclass

from reranker_operator.api.fields import SUBDOMAIN, cel_text


@dataclass(frozen=True)
class Rule:
    """One `x-kubernetes-validations` entry."""

    path: str
    rule: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """As written in the CRD."""
        return {"rule": self.rule, "message": self.message}


SERVICE_RULES = (
    Rule(
        "",
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') "
        "&& self.metadata.name.size() <= 40",
        "metadata.name must start with a letter, hold only lower-case letters, digits and '-', "
        "and have at most 40 characters, since other names are derived from it; rename the service",
    ),
    Rule(
        "spec.model",
        "!has(self.secretRef) || self.source.startsWith('hf://')",
        "model.secretRef is the token of an hf:// source; for oci:// use model.imagePullSecret",
    ),
    Rule(
        "spec.model",
        "!has(self.imagePullSecret) || self.source.startsWith('oci://')",
        "model.imagePullSecret is for oci:// sources; for hf:// use model.secretRef",
    ),
    Rule(
        "spec.model.source",
        f"!self.startsWith('pvc://') || self.matches({cel_text(f'^pvc://{SUBDOMAIN}(/.*)?$')})",
        "model.source names no volume claim: a claim's name has only lower-case letters, digits, "
        "'-' and '.'; write pvc://CLAIM/PATH",
    ),
    Rule(
        "spec.model",
        "!has(self.revision) || self.source.startsWith('hf://')",
        "model.revision is for hf:// sources; give an image's tag or digest in model.source",
    ),
    Rule(
        "spec",
        "!has(self.expose) || !has(self.expose.grpcRoute) || !has(self.serving) "
        "|| !has(self.serving.dialects) || self.serving.dialects.size() == 0 "
        "|| 'grpc' in self.serving.dialects",
        "expose.grpcRoute leads to port 8001, which serving.dialects switches off; add grpc there, "
        "or remove the route",
    ),
    Rule(
        "spec",
        "!has(self.engine.image) || !has(self.model.secretRef)",
        "engine.image and model.secretRef exclude each other, since the token is only given to the "
        "operator's own builder image; remove one of them",
    ),
    Rule(
        "spec.engine.store",
        "!has(self.existingClaim) || !has(self.storageClassName)",
        "engine.store.existingClaim and engine.store.storageClassName exclude each other: "
        "remove storageClassName to use the existing claim",
    ),
    Rule(
        "spec.accelerator",
        "self.type != 'none' || (!has(self.count) && !has(self.resourceName))",
        "accelerator.count and accelerator.resourceName need accelerator.type nvidia; set it, or "
        "remove them",
    ),
)

ENGINE_RULES = (
    Rule(
        "spec",
        "self.digest == oldSelf.digest && self.modelName == oldSelf.modelName && "
        "self.prepare == oldSelf.prepare && self.identity == oldSelf.identity && "
        "self.store == oldSelf.store",
        "digest, modelName, prepare, identity and store are immutable: they name the engine and "
        "its files; change the RerankerService instead, which makes another engine",
    ),
)
