"""Sockets of the API's and the metrics' ports."""

import socket
from pathlib import Path

import pytest
from support.ports import free_ports

from reranker_gateway.listeners import ListenError, Listeners
from reranker_gateway.settings import Settings


def _settings(folder: Path, *ports: int) -> Settings:
    return Settings(
        engine_dir=folder, host="127.0.0.1", http_port=ports[0], metrics_port=ports[1],
        dialects=("nim",),
    )  # fmt: skip


def test_an_answer_is_sent_without_waiting_for_the_receipt_of_its_head(tmp_path: Path) -> None:
    listeners = Listeners(_settings(tmp_path, *free_ports(2)))
    listener = listeners._api_socket
    with listener, listeners._metrics_socket:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    one, other = free_ports(2)
    with (
        socket.create_server(("127.0.0.1", one)),
        pytest.raises(ListenError, match=f"RERANKER_HTTP_PORT={one}"),
    ):
        Listeners(_settings(tmp_path, one, other))
