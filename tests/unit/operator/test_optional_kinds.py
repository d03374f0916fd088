"""Kinds that come and go: asked for seldom, and an API server that is away stops nobody."""

import logging

import pytest

from reranker_operator.api.meta import HTTP_ROUTE, OPTIONAL, SERVICE_MONITOR, Resource
from reranker_operator.errors import Unavailable
from reranker_operator.runtime.optional_kinds import OptionalKinds
from reranker_operator.shell.settings import ExpectedAbsence


class _Server:
    def __init__(self) -> None:
        self.there: set[Resource] = set()
        self.asked = 0
        self.up = True
        self.now = 0.0

    async def serves(self, resource: Resource) -> bool:
        if not self.up:
            raise Unavailable("no answer")
        self.asked += 1
        return resource in self.there


async def test_a_missing_kind_is_looked_for_once_in_a_while() -> None:
    server = _Server()
    kinds = OptionalKinds(server, clock=lambda: server.now)
    assert await kinds.present([]) == set()
    assert server.asked == len(OPTIONAL)
    for _ in range(10):
        await kinds.present([HTTP_ROUTE])
    assert server.asked == len(OPTIONAL)
    server.now, server.there = 60.0, {HTTP_ROUTE}
    assert await kinds.present([]) == set()
    assert await kinds.present([HTTP_ROUTE]) == {HTTP_ROUTE}
    server.now = 120.0
    await kinds.present([HTTP_ROUTE])
    assert server.asked == 2 * len(OPTIONAL)


async def test_what_is_known_stays_known_without_an_api_server() -> None:
    server = _Server()
    server.up = False
    kinds = OptionalKinds(server, clock=lambda: server.now)
    with pytest.raises(Unavailable):
        await kinds.present([])
    server.up, server.there = True, {HTTP_ROUTE}
    assert await kinds.present([]) == {HTTP_ROUTE}
    server.up, server.now = False, 60.0
    assert await kinds.present([SERVICE_MONITOR]) == {HTTP_ROUTE}
    kinds.forget(HTTP_ROUTE)
    assert await kinds.present([]) == set()


async def test_a_write_that_finds_nothing_has_them_looked_up_at_once() -> None:
    server = _Server()
    server.there = {HTTP_ROUTE}
    kinds = OptionalKinds(server, clock=lambda: server.now)
    assert await kinds.present([]) == {HTTP_ROUTE}
    assert not await kinds.have_changed()
    server.there = set()
    assert await kinds.have_changed()
    assert await kinds.present([]) == set()


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        ("Unresolved resources cannot be served (try creating their CRDs): Selector("
         "group='gateway.networking.k8s.io', version='v1', any_name='httproutes')", False),
        ("Unresolved resources cannot be served (try creating their CRDs): Selector("
         "group='reranker.dev', version='v1alpha1', any_name='rerankerservices'), Selector("
         "group='gateway.networking.k8s.io', version='v1', any_name='httproutes')", True),
        ("Unresolved resources of another wording", True),
        ("Not enough permissions to watch for resources", True),
    ],
)  # fmt: skip
def test_only_expected_absences_are_silent(text: str, logged: bool) -> None:
    record = logging.LogRecord("kopf", logging.WARNING, "", 0, text, None, None)
    assert ExpectedAbsence().filter(record) is logged
