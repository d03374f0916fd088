"""The causes of docs/runbook.md, each as the cluster shows it."""

from .causes_of_builds import build, images, references, source
from .causes_of_pods import no_node, refusals, served, volumes

CAUSES = tuple(
    cause
    for group in (source, build, references, images, no_node, volumes, refusals, served)
    for cause in group()
)
