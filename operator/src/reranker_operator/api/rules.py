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


#: Of an optional number of pods, or percent of them.
AMOUNT = (
    "!has({field}) || (type({field}) == string "
    "? {field}.matches('^0*(100|[0-9]{{1,2}})%$') : {field} >= 0)"
)

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
        "!has(self.secretRef) || self.source.startsWith('hf://') "
        "|| self.source.startsWith('ngc://') || self.source.startsWith('s3://') "
        "|| (has(self.adapter) && self.adapter.source.startsWith('hf://'))",
        "model.secretRef is for hf://, ngc:// and s3:// sources; for oci:// use "
        "model.imagePullSecret, else remove it",
    ),
    Rule(
        "spec.model.adapter",
        "self.source.startsWith('hf://') || self.source.startsWith('pvc://')",
        "model.adapter.source is hf://ORG/NAME or pvc://CLAIM/PATH; put the adapter there",
    ),
    Rule(
        "spec.model.adapter",
        "!has(self.revision) || self.source.startsWith('hf://')",
        "model.adapter.revision is for hf:// sources; remove it",
    ),
    Rule(
        "spec.model",
        "!has(self.template) || (self.template.split('{query}').size() == 2 && "
        "self.template.split('{passage}').size() == 2)",
        "model.template needs {query} and {passage}, each once",
    ),
    Rule(
        "spec.model",
        "!has(self.imagePullSecret) || self.source.startsWith('oci://')",
        "model.imagePullSecret is for oci:// sources; for others use model.secretRef",
    ),
    Rule(
        "spec.model.source",
        "self.matches('^(hf|ngc|oci|pvc|s3|https)://.')",
        "model.source does not begin with a known scheme; write hf://ORG/NAME for a model of the "
        "Hugging Face hub, or an ngc://, oci://, pvc://, s3:// or https:// source",
    ),
    Rule(
        "spec.model.source",
        "!self.matches('^https://(huggingface[.]co|hf[.]co)/[^/]+/[^/]+/?$')",
        "model.source is a page of the Hugging Face hub; write hf://ORG/NAME",
    ),
    Rule(
        "spec.model.source",
        f"!self.startsWith('pvc://') || self.matches({cel_text(f'^pvc://{SUBDOMAIN}(/.*)?$')})",
        "model.source names no volume claim: a claim's name has only lower-case letters, digits, "
        "'-' and '.'; write pvc://CLAIM/PATH",
    ),
    Rule(
        "spec.model",
        "!has(self.revision) "
        "|| !(self.source.startsWith('oci://') || self.source.startsWith('pvc://'))",
        "model.revision is not for oci:// and pvc:// sources; give an image's tag or digest in "
        "model.source, and remove it",
    ),
    Rule(
        "spec.model",
        "!self.source.startsWith('https://') "
        "|| (has(self.revision) && self.revision.matches('^sha256:[0-9a-f]{64}$'))",
        "model.revision must be the archive's hash for an https:// source; write sha256: and what "
        "`sha256sum` prints",
    ),
    Rule(
        "spec.model",
        "(!has(self.endpoint) && !has(self.region)) || self.source.startsWith('s3://')",
        "model.endpoint and model.region are for s3:// sources; remove them",
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
        "spec.rollout",
        "!has(self.canary) || self.strategy == 'canary'",
        "rollout.canary has the steps of the strategy canary; set rollout.strategy to canary, or "
        "remove it",
    ),
    Rule(
        "spec.rollout",
        "!has(self.blueGreen) || self.strategy == 'blueGreen'",
        "rollout.blueGreen is for the strategy blueGreen; set rollout.strategy to blueGreen, or "
        "remove it",
    ),
    Rule(
        "spec.rollout",
        "!has(self.minAvailable) || self.strategy == 'noSurge'",
        "rollout.minAvailable is for the strategy noSurge, since the others never go below "
        "replicas; set rollout.strategy to noSurge, or remove it",
    ),
    Rule(
        "spec.rollout",
        AMOUNT.format(field="self.minAvailable"),
        "rollout.minAvailable is a number of pods such as 1, or a share up to 100%, such as 50%; "
        "write one of them",
    ),
    Rule(
        "spec.rollout",
        "!has(self.gates) || !has(self.gates.shadow) || self.strategy == 'canary' || "
        "(self.strategy == 'blueGreen' && has(self.blueGreen) && "
        "(self.blueGreen.previewSeconds > 0 || !self.blueGreen.autoPromote))",
        "rollout.gates.shadow compares while the former revision has the traffic; set "
        "rollout.strategy to canary, or to blueGreen with blueGreen.previewSeconds or autoPromote "
        "false, or remove it",
    ),
    Rule(
        "spec.rollout.canary",
        "self.steps.map(step, step.weight).isSorted()",
        "rollout.canary.steps must not take traffic away again; put them in the order of their "
        "weights",
    ),
    Rule(
        "spec",
        "!has(self.engine.image) || !has(self.model.secretRef)",
        "engine.image and model.secretRef exclude each other, since the token is only given to the "
        "operator's own builder image; remove one of them",
    ),
    Rule(
        "spec.autoscaling",
        "self.min <= self.max",
        "autoscaling.min is greater than autoscaling.max; lower the one or raise the other",
    ),
    # The API server compares whole numbers with the whole part of a minimum: 0 with 0.
    Rule(
        "spec.autoscaling.targetBacklogSeconds",
        "self >= 0.1",
        "autoscaling.targetBacklogSeconds is less than 0.1; give at least 0.1, or remove it for "
        "the default",
    ),
    Rule(
        "spec",
        "!has(self.engine.image) || !has(self.engine.registry) "
        "|| (!has(self.engine.registry.secretName) && !has(self.engine.registry.signKey))",
        "engine.image excludes engine.registry.secretName and engine.registry.signKey, since "
        "login and key are only given to the operator's own builder image; remove them",
    ),
    Rule(
        "spec.engine.registry",
        "self.pull || self.push",
        "engine.registry does nothing with pull and push both false; remove it, or set one",
    ),
    Rule(
        "spec.engine.registry",
        "self.build || (self.pull && !self.push)",
        "engine.registry.build false waits for what others push: set pull to true and push to "
        "false",
    ),
    Rule(
        "spec.engine.registry",
        "!has(self.signKey) || self.push",
        "engine.registry.signKey signs what is pushed; set push to true, or remove it",
    ),
    Rule(
        "spec.engine.registry",
        "!has(self.requireSigned) || self.pull",
        "engine.registry.requireSigned is about what is pulled; set pull to true, or remove it",
    ),
    Rule(
        "spec.engine.registry.requireSigned",
        "has(self.configMap) != has(self.secret)",
        "engine.registry.requireSigned names either a configMap or a secret with the public key",
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
