"""The gateway's process with a certificate: handshakes, replacement, refusals."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.certificates import issue

from reranker_gateway.handshake import HANDSHAKE_SECONDS
from reranker_gateway.tls import Certificate, TlsError

Start = Callable[..., Any]
BODY = b'{"model":"demo","query":{"text":"a"},"passages":[{"text":"b"}]}'


def client(folder: Path, port: int) -> httpx.AsyncClient:
    """Trusts exactly that certificate."""
    return httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{port}",
        verify=ssl.create_default_context(cafile=str(folder / "tls.crt")),
        # By itself httpx lets go of a connection that was idle for five seconds, which is as
        # long as the gateway takes to see another certificate.
        limits=httpx.Limits(keepalive_expiry=None),
        timeout=30,
    )


def presented(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port))


def sockets(pid: int) -> int:
    """How many the process has open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(entry.readlink()).startswith("socket:")
    return found


@pytest.fixture
async def served(
    start_gateway: Start, triton: Any, tmp_path: Path
) -> tuple[Any, Path, httpx.AsyncClient]:
    """A gateway with TLS, its folder, and a client of its plain port."""
    folder = tmp_path / "tls"
    issue(folder, "first")
    await triton.start()
    gateway = await start_gateway(TLS_DIR=folder)
    plain = httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.metrics_port}")
    gateway.client, former = plain, gateway.client
    await former.aclose()
    # The probes, as the kubelet asks.
    await gateway.until_ready()
    return gateway, folder, plain


async def test_answers_over_tls_and_probes_without(
    served: tuple[Any, Path, httpx.AsyncClient],
) -> None:
    gateway, folder, plain = served
    async with client(folder, gateway.port) as secure:
        assert (await secure.post("/v1/ranking", content=BODY)).status_code == 200
        assert (await secure.get("/v1/health/ready")).status_code == 200
    assert "reranker_ready 1.0" in (await plain.get("/metrics")).text
    # What is scored is scored over TLS only.
    assert (await plain.post("/v1/ranking", content=BODY)).status_code == 404
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as http:
        with pytest.raises(httpx.TransportError):
            await http.post("/v1/ranking", content=BODY)


async def test_a_new_certificate_is_for_new_connections(
    served: tuple[Any, Path, httpx.AsyncClient],
) -> None:
    gateway, folder, _ = served
    async with client(folder, gateway.port) as old:
        assert (await old.get("/v1/health/live")).status_code == 200
        before = (folder / "tls.crt").read_text()
        issue(folder, "second")
        after = (folder / "tls.crt").read_text()
        assert before != after
        while await asyncio.to_thread(presented, gateway.port) != after:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert (await old.get("/v1/health/live")).status_code == 200
        async with client(folder, gateway.port) as new:
            assert (await new.post("/v1/ranking", content=BODY)).status_code == 200


async def test_what_is_not_http_is_refused_over_tls_too(
    served: tuple[Any, Path, httpx.AsyncClient],
) -> None:
    gateway, folder, _ = served
    context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context)
    writer.write(b"nonsense\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_who_does_not_shake_hands_is_let_go(
    served: tuple[Any, Path, httpx.AsyncClient],
) -> None:
    gateway, _, _ = served
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    assert await reader.read() == b""
    writer.close()


async def test_handshakes_count_as_connections_and_make_room(
    start_gateway: Start, triton: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    issue(folder, "first")
    await triton.start()
    gateway = await start_gateway(TLS_DIR=folder, MAX_CONNECTIONS=4)
    plain = httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.metrics_port}")
    gateway.client, former = plain, gateway.client
    await former.aclose()
    await gateway.until_ready()
    before = sockets(gateway.process.pid)
    async with contextlib.AsyncExitStack() as stack:
        crowd = []
        for _ in range(12):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            stack.callback(writer.close)
            crowd.append(reader)
        # Those that came first were let go at once, long before their time was over.
        for reader in crowd[:8]:
            async with asyncio.timeout(HANDSHAKE_SECONDS / 2):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        assert sockets(gateway.process.pid) <= before + 4
        # And nobody is kept out by the others.
        async with client(folder, gateway.port) as secure:
            assert (await secure.post("/v1/ranking", content=BODY)).status_code == 200


async def test_a_request_may_come_with_the_end_of_the_handshake(
    served: tuple[Any, Path, httpx.AsyncClient],
) -> None:
    gateway, folder, _ = served
    context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            incoming.write(await reader.read(1 << 16))
        else:
            break
    # In one segment with the client's last word.
    head = f"POST /v1/ranking HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
    tls.write(head.encode() + BODY)
    writer.write(outgoing.read())
    answer = b""
    while b"\r\n\r\n" not in answer:
        incoming.write(await reader.read(1 << 16))
        with contextlib.suppress(ssl.SSLWantReadError):
            answer += tls.read(1 << 16)
    assert answer.startswith(b"HTTP/1.1 200 ")
    writer.close()


def test_half_a_change_keeps_the_certificate(tmp_path: Path) -> None:
    issue(tmp_path / "one", "one")
    issue(tmp_path / "two", "two")
    one, two = tmp_path / "one", tmp_path / "two"
    certificate = Certificate(one)
    assert not certificate.refresh()
    (one / "tls.crt").write_text((two / "tls.crt").read_text())
    assert not certificate.refresh()
    (one / "tls.key").write_text((two / "tls.key").read_text())
    assert certificate.refresh()


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_a_certificate_that_is_no_pair_is_named(tmp_path: Path, missing: str) -> None:
    issue(tmp_path, "one")
    (tmp_path / missing).write_text("nothing")
    with pytest.raises(TlsError, match=r"tls\.crt and .*tls\.key are not a pair"):
        Certificate(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(TlsError, match=f"{missing} cannot be read"):
        Certificate(tmp_path)


async def test_the_process_says_what_is_missing(start_gateway: Start, tmp_path: Path) -> None:
    for variable in ("TLS_DIR", "API_KEYS_DIR"):
        gateway = await start_gateway(**{variable: tmp_path / "absent"})
        _, said = await gateway.process.communicate()
        assert gateway.process.returncode == 1
        assert "cannot be read" in said.decode()
