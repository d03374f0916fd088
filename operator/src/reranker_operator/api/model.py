"""What a service says of its model: `spec.model`."""

from typing import Annotated, Literal

from pydantic import Field

from reranker_contracts import Pooling
from reranker_contracts.model import TEMPLATE_LIMIT
from reranker_operator.api.fields import ENDPOINT, Key, Name
from reranker_operator.api.meta import ApiModel

#: The gateway takes several names with commas between them.
_NO_COMMA = "^[^,]+$"


class SecretKeyRef(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Name = Field(description="Name of the Secret.")
    key: Key = Field(default="token", description="Key inside it.")


class AdapterSpec(ApiModel):
    """A LoRA adapter of PEFT."""

    source: str = Field(
        min_length=1,
        max_length=1024,
        description="Where its files come from: hf://ORG/NAME or pvc://CLAIM/PATH.",
    )
    revision: str | None = Field(
        default=None,
        max_length=255,
        description="Branch, tag or commit of a hub source. Default: the main branch.",
    )


class ModelSpec(ApiModel):
    """Which model to serve."""

    source: str = Field(
        min_length=1,
        max_length=1024,
        description=(
            "Where the model's files come from: hf://ORG/NAME (Hugging Face hub), "
            "ngc://ORG[/TEAM]/MODEL:VERSION (NVIDIA's NGC catalogue), s3://BUCKET/PATH (a bucket), "
            "https://HOST/PATH/MODEL.tar.gz (a tar archive), "
            "oci://IMAGE[?path=/models] (a container image that holds the files) or "
            "pvc://CLAIM/PATH (a volume claim in the same namespace)."
        ),
    )
    revision: str | None = Field(
        default=None,
        max_length=255,
        description="Branch, tag or commit of a hub source, by default the main branch. Of an "
        "https:// source sha256: and the archive's hash, which it must have. Of s3:// and ngc:// "
        "the revision that the status shows, to keep to it.",
    )
    adapter: AdapterSpec | None = Field(
        default=None, description="LoRA adapter that is merged into the model's weights."
    )
    template: str | None = Field(
        default=None,
        min_length=1,
        max_length=TEMPLATE_LIMIT,
        description=(
            "Text around {query} and {passage}, each once, as the model was trained with. Default: "
            "as the model's own files or its family's model card have it."
        ),
    )
    labels: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=2,
        description=(
            "Of a language model: the word whose logit is the score, and the one whose logit is "
            "subtracted. Default: as the model's own files or its family have it."
        ),
    )
    pooling: Pooling | None = Field(
        default=None,
        description="Which hidden states the score is made of. Default: as the model's files say.",
    )
    activation: Literal["none", "sigmoid"] | None = Field(
        default=None, description="From logit to score. Default: as the model's files say."
    )
    secret_ref: SecretKeyRef | None = Field(
        default=None,
        description="Secret with the token of an hf:// or the API key of an ngc:// source under "
        "`key`. For s3:// it holds AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary "
        "keys, AWS_SESSION_TOKEN.",
    )
    endpoint: str | None = Field(
        default=None,
        max_length=512,
        pattern=ENDPOINT,
        description="Server of an s3:// source, such as https://minio.example:9000. Default: AWS.",
    )
    region: str | None = Field(
        default=None,
        max_length=64,
        pattern="^[a-z0-9][a-z0-9-]*$",
        description="Region of an s3:// source. Default: us-east-1.",
    )
    image_pull_secret: Name | None = Field(
        default=None, description="Pull secret for an oci:// source."
    )
    served_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=_NO_COMMA,
        description="Model id in the API, in place of the model's own name. No commas.",
    )
    aliases: tuple[Annotated[str, Field(min_length=1, max_length=128, pattern=_NO_COMMA)], ...] = (
        Field(
            default=(),
            max_length=16,
            description="Further model ids that clients may use, without commas; the service's own "
            "name is always one.",
        )
    )
