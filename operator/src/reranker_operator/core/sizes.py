"""What is too large for the API server, told before anything is made of it."""

from collections.abc import Iterator

from reranker_operator import names
from reranker_operator.api.conditions import Condition, ConditionType, Reason, condition
from reranker_operator.api.meta import ApiModel
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core import references
from reranker_operator.core.world import ServiceWorld
from reranker_operator.render import serving as render
from reranker_operator.render.pods import Json

#: Bytes of the template in its annotation: all annotations of an object together have 256 KiB.
LARGEST_PACKED = 260_000
#: Characters of `spec.serving` that fit in any case.
_HARMLESS = 50_000


def too_large(world: ServiceWorld, engine: RerankerEngine | None) -> Condition | None:
    """`Accepted` where the pods' template has no room in the annotation that remembers it."""
    service = world.service
    if engine is None or len(service.spec.serving.model_dump_json()) < _HARMLESS:
        return None
    template = render.pod_template(service, engine, world.defaults, references.of_pods(world, None))
    if fits(service, template):
        return None
    field, size = max(_parts(service), key=lambda part: part[1])
    text = (
        f"the pods' template is too large to be remembered ({LARGEST_PACKED} bytes when "
        f"packed), most of it {field} with {size} characters; move long texts of it to a ConfigMap "
        "and mount that"
    )
    return condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, text)


def fits(service: RerankerService, template: Json) -> bool:
    """Whether a Deployment can carry its template, and it can be read again."""
    entry = render.deployment(service, template, 1)
    packed = entry["metadata"]["annotations"][names.TEMPLATE_ANNOTATION]
    return len(packed) <= LARGEST_PACKED and render.template_of(entry) is not None


def _parts(service: RerankerService) -> Iterator[tuple[str, int]]:
    serving = service.spec.serving
    for title, part in (
        ("gateway", serving.gateway),
        ("triton", serving.triton),
        ("pod", serving.pod),
    ):
        yield from ((f"spec.serving.{title}.{field}", size) for field, size in _fields(part))


def _fields(part: ApiModel) -> Iterator[tuple[str, int]]:
    for field, value in part.to_dict().items():
        yield field, len(str(value))
