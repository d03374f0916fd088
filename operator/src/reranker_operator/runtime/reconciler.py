"""One reconcile: read, plan purely, execute, judge what went wrong."""

import datetime
import logging
from collections.abc import Callable

from reranker_contracts import StageReason
from reranker_operator import names
from reranker_operator.adapters.cache import writing_as
from reranker_operator.adapters.cluster import IndexedCluster, Json
from reranker_operator.api.conditions import (
    ConditionType,
    Reason,
    condition,
    find,
    is_true,
    merge,
    summarise,
)
from reranker_operator.api.meta import (
    API_VERSION,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    RESOURCES,
)
from reranker_operator.api.v1alpha1 import ObjectMeta, RerankerEngine, RerankerService
from reranker_operator.core.causes.admission import refused_write
from reranker_operator.core.causes.finding import Finding, finding
from reranker_operator.core.engine_plan import plan_engine
from reranker_operator.core.plan import DropFinalizer, Plan
from reranker_operator.core.service_plan import plan_service
from reranker_operator.core.wording import quote
from reranker_operator.errors import (
    Forbidden,
    NamespaceTerminating,
    NameTaken,
    NotFound,
    OperatorError,
    Rejected,
)
from reranker_operator.render.defaults import Defaults
from reranker_operator.runtime.execute import Done, Executor
from reranker_operator.runtime.gather import engine_world, service_world
from reranker_operator.runtime.loads import Loads
from reranker_operator.runtime.optional_kinds import OptionalKinds
from reranker_operator.runtime.queue import Key
from reranker_operator.runtime.reading import Unreadable, read, status_of
from reranker_operator.runtime.references import References

logger = logging.getLogger(__name__)

#: Seconds until a name that somebody else's object has is tried again; nobody tells of its end.
_NAME_RECHECK = 60.0
#: Plans in a row before the status is written: what was applied is seen at once, and saves a write.
_PASSES = 3


def utc_now() -> datetime.datetime:
    """The time, to the second: that is what the API stores."""
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class _RefusedError(Exception):
    """Something was refused that the pods did not wait for."""

    def __init__(self, refusal: Forbidden | Rejected, done: Done) -> None:
        super().__init__(str(refusal))
        self.refusal, self.done = refusal, done


class Reconciler:
    """Brings one object at a time to where its spec wants it."""

    def __init__(
        self,
        cluster: IndexedCluster,
        defaults: Defaults,
        *,
        identity: str = names.MANAGER,
        read_nodes: bool = True,
        references: References | None = None,
        clock: Callable[[], datetime.datetime] = utc_now,
        kinds: OptionalKinds | None = None,
        loads: Loads | None = None,
    ) -> None:
        self._cluster = cluster
        self._defaults = defaults
        self._executor = Executor(cluster, identity, lambda: clock().timestamp())
        self._read_nodes = read_nodes
        self._references = references
        self._clock = clock
        self._kinds = kinds
        self._loads = loads

    async def reconcile(self, key: Key) -> float | None:
        """One look; seconds after which to look again, or None. Raises OperatorError to retry."""
        with writing_as(key):
            try:
                return await self._reconcile(key)
            except OperatorError:
                raise
            except Exception as error:
                await self._confess(key, error)
                raise

    async def _reconcile(self, key: Key) -> float | None:
        done = Done()
        for _ in range(_PASSES):
            if (raw := await self._find(key)) is None:
                return None
            try:
                subject, plan = await self._plan(key, raw)
            except Unreadable as error:
                if not await self._let_go(key, raw):
                    await self._refuse(key, raw, error)
                return None
            except Forbidden as error:
                # Nothing is planned: what was said before stays, and why nothing more is done.
                await self._complain(_subject(key, raw), Plan(), _complaint(error))
                raise
            try:
                result = await self._act(subject, plan)
            except (NamespaceTerminating, NameTaken, _RefusedError) as error:
                return await self._give_way(key, subject, plan, error)
            except NotFound:
                if self._kinds is None or not await self._kinds.have_changed():
                    raise
                done += Done(0, 1)
                continue
            done += result
            if plan.noted or not (result.changes and result.only_applied):
                break
        done += await self._executor.conclude(subject, plan)
        if done.writes:
            logger.debug("%s: %d writes; %s", key, done.writes, "; ".join(plan.details))
        # The echo of what we wrote ourselves is no event.
        return 0.0 if done.changes else plan.requeue_after

    async def _give_way(
        self,
        key: Key,
        subject: RerankerService | RerankerEngine,
        plan: Plan,
        error: NamespaceTerminating | NameTaken | _RefusedError,
    ) -> float | None:
        """Something was refused for good or for now: seconds after which to look again."""
        if isinstance(error, NamespaceTerminating):
            await self._leave(subject, error)
            return None
        if isinstance(error, _RefusedError) and (error.done.changes or plan.on_time):
            # The pods get on with it, whatever becomes of the rest.
            return 0.0 if error.done.changes else plan.requeue_after
        refusal = error.refusal if isinstance(error, _RefusedError) else error
        if isinstance(refusal, NameTaken):
            logger.warning("%s: %s", key, refusal)
            return _NAME_RECHECK
        raise refusal from None

    async def _confess(self, key: Key, error: Exception) -> None:
        """A defect of ours at this object: whoever looks at it should not wonder at its silence.

        Not in its own words, which may be anybody's: those are in the log.
        """
        told = finding(
            StageReason.INTERNAL_ERROR,
            f"the operator fails at this object ({type(error).__name__}) and tries again",
            "see the operator's log and report what it says",
        )
        try:
            raw = await self._find(key)
            if raw is not None:
                await self._complain(_subject(key, raw), Plan(), told)
        except Exception as reason:
            # The first one is the one to be raised.
            logger.warning("%s: the failure is not told in its status: %s", key, reason)

    async def _find(self, key: Key) -> Json | None:
        try:
            return await self._cluster.get(RESOURCES[key.kind], key.namespace, key.name)
        except NotFound:
            if self._references is not None:
                self._references.forget(key)
            if self._loads is not None:
                self._loads.forget(key)
            return None

    async def _act(self, subject: RerankerService | RerankerEngine, plan: Plan) -> Done:
        """Carry out all but the status; what is refused is told before it is raised."""
        try:
            done, failure = await self._executor.act(subject, plan)
        except NamespaceTerminating:
            raise
        except (Forbidden, Rejected) as error:
            await self._complain(subject, plan, _complaint(error))
            raise
        beside, refusal = await self._executor.act_beside(
            subject, plan.beside if failure is None else plan.beside_alone
        )
        done += beside
        if isinstance(failure, Forbidden | Rejected):
            await self._complain(subject, plan, _complaint(failure))
            raise _RefusedError(failure, done)
        if failure is not None:
            await self._executor.conclude(subject, _decided(subject, plan))
            raise failure
        if refusal is not None:
            await self._complain(subject, plan, _complaint(refusal), ConditionType.INTEGRATED)
            raise _RefusedError(refusal, done)
        return done

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
                references=self._references,
                loads=self._loads,
            )
            return world.service, plan_service(world)
        engine = await engine_world(self._cluster, raw, self._defaults, now)
        return engine.engine, plan_engine(engine)

    async def _leave(
        self, subject: RerankerService | RerankerEngine, error: NamespaceTerminating
    ) -> None:
        """The namespace is going away with everything in it: nothing must hold it back."""
        meta = subject.metadata
        if meta.deletion_timestamp is None:
            await self._complain(subject, Plan(), _complaint(error))
        elif names.FINALIZER in meta.finalizers:
            plan = Plan(actions=(DropFinalizer(RERANKER_ENGINE, meta.name),))
            await self._executor.act(subject, plan)

    async def _let_go(self, key: Key, raw: Json) -> bool:
        """An engine that can't be read must not hang in its deletion, which we advise.

        Its files stay: which ones they are can't be read either.
        """
        meta = ObjectMeta.model_validate(raw["metadata"])
        held = meta.deletion_timestamp is not None and names.FINALIZER in meta.finalizers
        if key.kind != RERANKER_ENGINE.kind or not held:
            return False
        logger.warning("%s: its files stay in the store, since it can't be read", key)
        engine = RerankerEngine.model_construct(**raw | {"metadata": meta})
        plan = Plan(actions=(DropFinalizer(RERANKER_ENGINE, meta.name),))
        await self._executor.act(engine, plan)
        return True

    async def _refuse(self, key: Key, raw: Json, error: Unreadable) -> None:
        """A spec that the schema let through but the models don't: say so, don't crash.

        All else that was said stays, and what goes on with it: a newer operator may have written
        this spec, and come back.
        """
        remedy = "correct the field and apply again"
        if key.kind == RERANKER_ENGINE.kind:
            remedy = "upgrade the operator, or delete this RerankerEngine"
        message = f"{error}; {remedy}"
        judgement = condition(ConditionType.ACCEPTED, False, Reason.INVALID_SPEC, message)
        judgements = [judgement, summarise([judgement], [ConditionType.ACCEPTED])]
        before = status_of(RESOURCES[key.kind], raw)
        told = {entry.type for entry in judgements}
        kept = [entry for entry in before.conditions if entry.type not in told]
        generation = raw["metadata"].get("generation", 1)
        accepted, ready = merge(before.conditions, judgements, generation, self._clock())
        # Server-side apply would drop what is left out, and the model be resolved again.
        status = before.model_copy(update={"conditions": (accepted, *kept, ready)})
        if status == before:
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": key.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": status.to_dict(),
        }
        logger.warning("%s: %s", key, message)
        await self._cluster.apply_status(body, names.STATUS_MANAGER)

    async def _complain(
        self,
        subject: RerankerService | RerankerEngine,
        plan: Plan,
        what: Finding,
        kind: ConditionType = ConditionType.PROGRESSING,
    ) -> None:
        """Something could not be done: a condition and Ready say why, the queue tries again."""
        reason, text = what
        told: tuple[ConditionType, ...] = (kind, ConditionType.READY)
        if not plan.judgements and _is_built(subject):
            # Whoever serves it need not care.
            told = (kind,)
        complaints = [condition(about, False, reason, text) for about in told]
        before = find(plan.judgements, ConditionType.READY)
        if kind == ConditionType.INTEGRATED and before is not None and before.status != "True":
            # What keeps the pods from serving is graver.
            complaints[-1] = before
        kept = [
            entry
            for entry in plan.judgements or subject.status.conditions
            if entry.type not in told
        ]
        # What was not judged now is still what was said of an earlier generation.
        judged = [*kept, *complaints] if plan.judgements else complaints
        conditions = merge(
            subject.status.conditions, judged, subject.metadata.generation, self._clock()
        )
        if not plan.judgements:
            conditions = [*kept, *conditions]
        status = (plan.status or subject.status).model_copy(
            update={"conditions": tuple(conditions)}
        )
        await self._executor.conclude(subject, Plan(status=status))


def _decided(subject: RerankerService | RerankerEngine, plan: Plan) -> Plan:
    """What is remembered of the pods, and nothing of what was to be done beside them."""
    if plan.status is None:
        return plan
    before = subject.status
    told = {
        "conditions": before.conditions, "observed_generation": before.observed_generation,
    }  # fmt: skip
    return Plan(status=plan.status.model_copy(update=told))


def _subject(key: Key, raw: Json) -> RerankerService | RerankerEngine:
    if key.kind == RERANKER_SERVICE.kind:
        return read(RerankerService, raw)[0]
    return read(RerankerEngine, raw)[0]


def _is_built(subject: RerankerService | RerankerEngine) -> bool:
    is_engine = isinstance(subject, RerankerEngine)
    return is_engine and is_true(subject.status.conditions, ConditionType.READY)


def _complaint(error: Forbidden | Rejected) -> Finding:
    text = str(error)
    if isinstance(error, NameTaken):
        return Finding(Reason.FOREIGN_OWNER, text)
    if isinstance(error, NamespaceTerminating):
        return finding(
            Reason.NAMESPACE_TERMINATING,
            "the namespace is being deleted, nothing can be made in it any more",
            "make the service in another namespace",
        )
    if isinstance(error, Rejected):
        remedy = "correct the field"
        if "spec.template." in text:
            remedy += (
                "; spec.template is made from the RerankerService: its containers from "
                "spec.serving.gateway and spec.serving.triton, the rest from spec.serving.pod and "
                "spec.accelerator"
            )
        return finding(Reason.REJECTED, quote(text), remedy)
    return refused_write(text)
