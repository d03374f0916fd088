"""The Lease, while nobody answers."""

import logging

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from reranker_operator.runtime.leader import Leader


async def test_a_lease_that_can_not_be_given_back_does_not_keep_the_process_from_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nobody = Configuration(host="http://127.0.0.1:1")
    async with ApiClient(nobody) as client:
        leader = Leader(client, name="lease", namespace="sys", identity="me", seconds=15)
        with caplog.at_level(logging.WARNING):
            await leader.release()
    assert "the Lease could not be given back" in caplog.text
    assert leader.lease_seen() is None
