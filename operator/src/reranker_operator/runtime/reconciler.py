"""One reconcile: read live, plan purely, execute, judge what went wrong."""

import datetime
import logging
from collections.abc import Callable

from pydantic import ValidationError

from reranker_operator import names
from reranker_operator.adapters.cluster import Cluster, Json
from reranker_operator.api.conditions import ConditionType, Reason, condition, merge, summarise
from reranker_operator.api.meta import (
    API_VERSION,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    RESOURCES,
)
from reranker_operator.api.v1alpha1 import RerankerEngine, RerankerService
from reranker_operator.core.engine_plan import plan_engine
from reranker_operator.core.plan import DropFinalizer, Plan
from reranker_operator.core.service_plan import plan_service
from reranker_operator.core.wording import advise
from reranker_operator.errors import (
    Forbidden,
    NamespaceTerminating,
    NameTaken,
    NotFound,
    Rejected,
)
from reranker_operator.render.defaults import Defaults
from reranker_operator.runtime.execute import Executor
from reranker_operator.runtime.gather import engine_world, service_world
from reranker_operator.runtime.optional_kinds import OptionalKinds
from reranker_operator.runtime.queue import Key

logger = logging.getLogger(__name__)

#: Seconds until a name that somebody else's object has is tried again; nobody tells of its end.
_NAME_RECHECK = 60.0


def utc_now() -> datetime.datetime:
    """The time, to the second: that is what the API stores."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class Reconciler:
    """Brings one object at a time to where its spec wants it."""

    def __init__(
        self,
        cluster: Cluster,
        defaults: Defaults,
        *,
        identity: str = names.MANAGER,
        read_nodes: bool = True,
        clock: Callable[[], datetime.datetime] = utc_now,
        kinds: OptionalKinds | None = None,
    ) -> None:
        self._cluster = cluster
        self._defaults = defaults
        self._executor = Executor(cluster, identity)
        self._read_nodes = read_nodes
        self._clock = clock
        self._kinds = kinds

    async def reconcile(self, key: Key) -> float | None:
        """One pass; seconds after which to look again, or None. Raises OperatorError to retry."""
        try:
            raw = await self._cluster.get(RESOURCES[key.kind], key.namespace, key.name)
        except NotFound:
            return None
        try:
            subject, plan = await self._plan(key, raw)
        except ValidationError as error:
            await self._refuse(key, raw, error)
            return None
        try:
            writes = await self._executor.execute(subject, plan)
        except NamespaceTerminating:
            await self._leave(subject)
            return None
        except NameTaken as error:
            await self._complain(subject, plan, error)
            logger.warning("%s: %s", key, error)
            return _NAME_RECHECK
        except (Forbidden, Rejected) as error:
            await self._complain(subject, plan, error)
            raise
        if writes:
            logger.debug("%s: %d writes; %s", key, writes, "; ".join(plan.details))
        return plan.requeue_after

    async def _plan(self, key: Key, raw: Json) -> tuple[RerankerService | RerankerEngine, Plan]:
        now = self._clock()
        if key.kind == RERANKER_SERVICE.kind:
            world = await service_world(
                self._cluster,
                raw,
                self._defaults,
                now,
                read_nodes=self._read_nodes,
                kinds=self._kinds,
            )
            return world.service, plan_service(world)
        engine = await engine_world(self._cluster, raw, self._defaults, now)
        return engine.engine, plan_engine(engine)

    async def _leave(self, subject: RerankerService | RerankerEngine) -> None:
        """The namespace is going away with everything in it: nothing must hold it back."""
        meta = subject.metadata
        if meta.deletion_timestamp is not None and names.FINALIZER in meta.finalizers:
            plan = Plan(actions=(DropFinalizer(RERANKER_ENGINE, meta.name),))
            await self._executor.execute(subject, plan)

    async def _refuse(self, key: Key, raw: Json, error: ValidationError) -> None:
        """A spec that the schema let through but the models don't: say so, don't crash."""
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        message = f"{path}: {first['msg']}; correct the field and apply again"
        meta = raw["metadata"]
        judgement = condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, message)
        judgements = [judgement, summarise([judgement], [ConditionType.ACCEPTED])]
        conditions = merge((), judgements, meta.get("generation", 1), self._clock())
        status = raw.get("status", {})
        previous = status.get("conditions", [])
        if any(c.get("type") == "Accepted" and c.get("message") == message for c in previous):
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": key.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            # Server-side apply would drop what is left out, and the model be resolved again.
            "status": status | {"conditions": [entry.to_dict() for entry in conditions]},
        }
        logger.warning("%s: %s", key, message)
        await self._cluster.apply_status(body, names.STATUS_MANAGER)

    async def _complain(
        self,
        subject: RerankerService | RerankerEngine,
        plan: Plan,
        error: Forbidden | Rejected,
    ) -> None:
        """An action was not allowed: Progressing and Ready say which, the queue tries again."""
        reason, text = _complaint(error)
        complaints = [
            condition(ConditionType.PROGRESSING, False, reason, text),
            condition(ConditionType.READY, False, reason, text),
        ]
        kept = [
            entry
            for entry in plan.judgements or subject.status.conditions
            if entry.type not in (ConditionType.PROGRESSING, ConditionType.READY)
        ]
        conditions = merge(
            subject.status.conditions,
            [*kept, *complaints],
            subject.metadata.generation,
            self._clock(),
        )
        status = (plan.status or subject.status).model_copy(
            update={"conditions": tuple(conditions)}
        )
        await self._executor.execute(subject, Plan(status=status))


def _complaint(error: Forbidden | Rejected) -> tuple[Reason, str]:
    text = str(error)
    if isinstance(error, NameTaken):
        return Reason.REJECTED, text
    if isinstance(error, Rejected):
        return Reason.REJECTED, advise(text, "correct the field")
    if "exceeded quota" in text:
        return Reason.QUOTA_EXCEEDED, advise(text, "raise the namespace's ResourceQuota")
    return Reason.FORBIDDEN, advise(text, "give the operator this right, or change the policy")
