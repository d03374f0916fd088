"""The containers of a build: one for each stage, on one builder image."""

import datetime
from dataclasses import dataclass
from typing import Any

from reranker_operator.api.kubernetes import ResourceRequirements
from reranker_operator.render.defaults import Defaults
from reranker_operator.render.pods import Json, container, mount
from reranker_operator.source import (
    ImageSource,
)

_RESULT = ["--result", "/dev/termination-log"]
WORK = mount("work", "/work")
_TMP = mount("tmp", "/tmp")  # noqa: S108 - a volume of the pod


@dataclass(frozen=True)
class Retention:
    """What a publish leaves in the store: these digests, and whatever was made since.

    Others stay `keep_hours` after they were needed last, while the volume is filled to less than
    `high_water_percent`.
    """

    keep: tuple[str, ...]
    made_before: datetime.datetime
    keep_hours: int = 0
    high_water_percent: int = 85

    @property
    def arguments(self) -> list[str]:
        """For the publish command."""
        return [
            *("--keep", *self.keep, "--made-before", self.made_before.isoformat()),
            *("--keep-hours", str(self.keep_hours)),
            *("--high-water", str(self.high_water_percent)),
        ]


@dataclass(frozen=True)
class Stages:
    """Builds the containers of one Job on one builder image; `device` is a GPU's resource."""

    defaults: Defaults
    image: str
    resources: ResourceRequirements | None
    device: str | None = None

    def stage(
        self,
        name: str,
        args: list[str],
        *extra: Json,
        env: list[Json] | None = None,
    ) -> Json:
        """The container of one command, which it is named after; `extra` are mounts."""
        resources: Any = (
            self.resources.to_dict() if self.resources else self.defaults.builder_resources
        )
        if self.device:
            limits = {**resources.get("limits", {}), self.device: 1}
            resources = {**resources, "limits": limits}
        return container(
            name,
            self.image,
            self.defaults,
            resources=resources,
            mounts=[WORK, _TMP, *extra],
            args=[name, *args, *_RESULT],
            env=env,
        )

    def publish(self, source: str, identity: str, retention: Retention | None) -> Json:
        """The container that publishes the directory `source`; `identity` is JSON."""
        args = ["--from", source, "--store", "/store", "--identity", identity]
        args += retention.arguments if retention else []
        # For the manifest: which builder made it.
        env: list[Json] = [{"name": "BUILDER_IMAGE", "value": self.image}]
        return self.stage("publish", args, mount("store", "/store"), env=env)

    def copy_image(self, source: ImageSource) -> list[Json]:
        """Two containers: bring static tools along, then run the model image with them.

        A model image may be empty but for the files, so it can't be expected to hold `cp`.
        """
        small = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "512Mi"}}
        tools = mount("tools", "/tools")
        return [
            container(
                "tools",
                self.image,
                self.defaults,
                resources=small,
                mounts=[tools],
                command=["cp", "/usr/bin/busybox", "/usr/local/bin/copy-model", "/tools"],
            ),
            container(
                "source",
                source.image,
                self.defaults,
                resources=small,
                mounts=[tools, WORK],
                command=["/tools/busybox", "sh", "/tools/copy-model", source.path, "/work/image"],
            ),
        ]
