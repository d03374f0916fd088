"""Rollout: which Deployment gets how many pods, which one the traffic, which ones go.

`rollouts` has how a revision is chosen and what it goes through; here the present stage is carried
out. In all strategies but one the new revision stands beside the former one, which stays complete
until the new one is proven. A newer wish in between drops the half-made revision and starts from
the newest.

No surge: the revisions share the number of pods and the traffic. The old side gives up one pod at a
time, see `split`; a newer wish in between makes all former revisions the old side.

Paused: nothing is moved, begun or dropped; what is there is kept as it was made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reranker_operator.api.meta import DEPLOYMENT
from reranker_operator.api.v1alpha1 import RerankerEngine
from reranker_operator.core.activation import pods_to_run
from reranker_operator.core.plan import Action, Apply, Scale
from reranker_operator.core.revisions import asked_of, is_shared, live_deployments, serving_revision
from reranker_operator.core.rollouts.beside import beside
from reranker_operator.core.rollouts.give import delete, give
from reranker_operator.core.rollouts.hand_over import floor_holds, hand_over, share_out
from reranker_operator.core.rollouts.view import View, look
from reranker_operator.core.rollouts.wish import Wish, choose
from reranker_operator.core.world import ServiceWorld
from reranker_operator.render import serving as render
from reranker_operator.render import shadow


@dataclass(frozen=True)
class Rollout:
    """`serving` is the revision behind the Service, as observed; `wanted` the one to get there.

    `wanted` is None while nothing else than what serves can be served, or may be. `applied` is the
    number of pods that each Deployment, by name, is given. `frozen`: nothing may be moved.
    """

    serving: str | None
    wanted: str | None
    actions: tuple[Action, ...] = ()
    applied: Mapping[str, int] = field(default_factory=dict)
    wish: Wish = field(default_factory=lambda: Wish(None))
    view: View | None = None
    frozen: bool = False

    @property
    def rolling(self) -> bool:
        """A wanted revision is not yet the serving one."""
        return self.wanted is not None and self.wanted != self.serving

    @property
    def given(self) -> int:
        """Pods that the wanted revision is given now."""
        target = self.view.target if self.view else self.wanted
        given = (n for name, n in self.applied.items() if name.endswith(f"-{target}"))
        return next(given, 0)

    @property
    def preview(self) -> str | None:
        """The revision that NAME-preview leads to."""
        view = self.view
        if view is None or view.straight:
            return None
        if view.strategy == "blueGreen" or self._by_route:
            return view.target
        # Pods of the former revision have their requests scored there, too, while they get any.
        shown = view.strategy == "canary" and shadow.gate_of(view.world.service) is not None
        return view.target if shown and not view.arrived else None

    @property
    def weight(self) -> int | None:
        """Percent of the requests that a route gives to NAME-preview; None: it knows no such."""
        view = self.view
        if view is None or view.straight or not self._by_route or view.arrived:
            return None
        return view.weight

    @property
    def _by_route(self) -> bool:
        """A route divides the requests."""
        view = self.view
        return view is not None and view.strategy == "canary" and view.routed

    @property
    def floor_holds(self) -> bool:
        """The next pod can't be given up, for the floor that was asked for."""
        return self.view is not None and not self.frozen and floor_holds(self.view)


def roll_out(world: ServiceWorld, engine: RerankerEngine | None) -> Rollout:
    """Bring `engine` into service; None keeps what serves and lets it follow `replicas`."""
    service, serving = world.service, serving_revision(world)
    wish = choose(world, engine, serving)
    known = wish.asked is not None or wish.given_up is not None
    wanted = wish.revision if known else None
    keeps = wanted is not None and wanted == (serving or service.status.revision)
    under_way = service.status.rollout is not None
    if service.spec.rollout.paused and (is_shared(world) or not keeps or under_way):
        return _freeze(world, serving, wish)
    view = look(world, wish, serving)
    if view is None:
        half_made = live_deployments(world).values()
        return Rollout(None, None, tuple(delete(entry) for entry in half_made), wish=wish)
    actions = hand_over(view) if view.hands_over else beside(view)
    return _concluded(Rollout(serving, wanted, wish=wish, view=view), actions)


def _freeze(world: ServiceWorld, serving: str | None, wish: Wish) -> Rollout:
    """Everything stays as it is; what serves still follows `replicas`, and drift is undone."""
    live, stand = live_deployments(world), world.service.status.rollout
    way = Wish(stand.revision if stand and stand.revision in live else serving)
    view = look(world, way, serving)
    frozen = Rollout(serving, None, wish=wish, view=view, frozen=True)
    if serving is None:
        return frozen
    shared, total = is_shared(world), pods_to_run(world)
    shares = {revision: asked_of(entry) for revision, entry in live.items()}
    if shared and stand is not None and stand.strategy == "canary":
        shares[serving] = total
    else:
        sharing = list(live) if shared else [serving]
        shares |= share_out(live, sharing, serving, total)
    if total == 0:
        # No pods at all are wanted, of the half-made revision neither.
        shares = dict.fromkeys(shares, 0)
    actions = [
        action
        for revision, number in sorted(shares.items())
        for action in give(world, live, revision, number)
    ]
    target = None if shared else serving
    return _concluded(frozen, [*actions, Apply(render.service_object(world.service, target))])


def _concluded(rollout: Rollout, actions: list[Action]) -> Rollout:
    applied = {}
    for action in actions:
        match action:
            case Apply(manifest) if manifest["kind"] == DEPLOYMENT.kind:
                applied[manifest["metadata"]["name"]] = manifest["spec"]["replicas"]
            case Scale(name, replicas):
                applied[name] = replicas
    return replace(rollout, actions=tuple(actions), applied=applied)
