"""Malformed requests by the hundred thousand against a gateway of its own, on loopback.

    bench/fuzz.py [--requests 100000] [--seconds 600] [--seed 1] [--connections 16]

Every path of every dialect and the gRPC port get requests that were valid before something was done
to them: to a field, to the JSON, to its bytes, to the HTTP around it. Fails unless every answer
comes in time, is a 200 or a 4xx with a JSON body (a gRPC status other than UNKNOWN, INTERNAL), the
log has no exception, the process lives on in bounded memory and answers a good request at the end.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.gateway_process import (  # noqa: E402
    GatewayProcess,
    TritonProcess,
    start_process,
    write_engine,
)
from support.ports import free_port  # noqa: E402

TEXTS = ["b", "d d", "", "c a b", "\u00fc\u4e2d \U0001f600"]
NIM = {"model": "demo", "query": {"text": "a"}, "passages": [{"text": text} for text in TEXTS]}
DOCUMENTS = {"model": "demo", "query": "a", "documents": TEXTS}
VALID: dict[str, list[dict[str, Any]]] = {
    "/v1/ranking": [NIM | {"truncate": "END"}],
    "/v1/retrieval/demo/reranking": [NIM | {"top_k": 2}],
    "/v1/rerank": [
        DOCUMENTS | {"top_n": 2, "return_documents": True},
        DOCUMENTS | {"return_embeddings": False},
        DOCUMENTS | {"truncate_prompt_tokens": -1},
    ],
    "/v2/rerank": [DOCUMENTS | {"max_tokens_per_doc": 3, "priority": 1}],
    "/rerank": [
        {"query": "a", "texts": TEXTS, "truncate": True, "raw_scores": False, "return_text": True},
        DOCUMENTS | {"raw_scores": True, "return_documents": True},
    ],
    "/score": [
        {"text_1": "a", "text_2": TEXTS},
        {"queries": TEXTS, "documents": TEXTS, "use_activation": False},
    ],
}
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 1 << 70, 1e308, 0.5, "", "NONE", "x" * 5000, "\u0000", "\u202e"),
    *([], {}, [None], [[]], [[[[[]]]]], {"text": 1}, {"text": ""}, [{"text": {}}], ["a"] * 600),
    *({"": {"": {"": {}}}}, "null", "1", "demo", "\ud7ff\ue000"),
]
GARBAGE = [
    b"",
    b"{",
    b"[" * 3000,
    b'{"a":' * 150,
    b"\xff\xfe\x00",
    b"NaN",
    b'"\\ud800"',
    b"0" * 9000,
]
HEAD = [
    b"Content-Length: -1\r\n",
    b"Content-Length: 1\r\nContent-Length: 2\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"X: " + b"y" * 20000 + b"\r\n",
    b"Bad Header\r\n",
    b"Content-Length: 99999999999999999999\r\n",
]
OKAY = {200, 400, 401, 404, 405, 408, 413, 414, 415, 422, 429, 431}
LONGEST = 20.0
#: Requests that are sent before the first answer to them is read.
MOST_AT_ONCE = 16
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Tally:
    """What came back."""

    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    sent: int = 0


def changed(chance: random.Random, body: Any) -> Any:
    """Something of `body` is replaced, removed or added."""
    body = json.loads(json.dumps(body))
    place = body
    while isinstance(place, dict | list) and place and chance.random() < 0.4:
        inner = place[chance.choice(list(place) if isinstance(place, dict) else range(len(place)))]
        if not isinstance(inner, dict | list):
            break
        place = inner
    value = chance.choice(VALUES)
    if isinstance(place, list):
        place.insert(chance.randint(0, len(place)), value)
    elif place and chance.random() < 0.3:
        del place[chance.choice(list(place))]
    else:
        names = [*place, "x" * chance.randint(0, 90), "text", "user", "top_k", "documents", "texts"]
        place[chance.choice(names)] = value
    return body


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Some bytes are other ones, missing, or too many."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(found))
        way = chance.random()
        if way < 0.4 and at < len(found):
            found[at] = chance.randrange(256)
        elif way < 0.6:
            del found[at : at + chance.randint(1, 20)]
        elif way < 0.8:
            found[at:at] = chance.choice(
                [b"[", b"{", b'"', b"\\", b",", b"\x00", b"1e999", b"\xed\xa0\x80"]
            )
        else:
            del found[at:]
    return bytes(found)


def request(chance: random.Random) -> tuple[bytes, bool]:
    """One request, and whether the connection is of no use after it."""
    path = chance.choice(list(VALID))
    body = json.dumps(changed(chance, chance.choice(VALID[path]))).encode()
    method, extra, ends = "POST", b"", False
    way = chance.random()
    if way < 0.35:
        body = damaged(chance, body)
    elif way < 0.4:
        body = chance.choice(GARBAGE)
    elif way < 0.44:
        path = chance.choice(["/", "/v1//ranking", "/v1/ranking/%00", "/%2e%2e/x", path + "?a=%ff"])
    elif way < 0.46:
        method = chance.choice(["GET", "PUT", "DELETE", "X" * 30, "OPTIONS"])
    elif way < 0.48:
        extra = b"Content-Type: text/plain\r\n"
    elif way < 0.5:
        extra, ends = chance.choice(HEAD), True
    length = b"" if ends else b"Content-Length: %d\r\n" % len(body)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n".encode()
    return head + extra + length + b"\r\n" + body, ends


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the server closes."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    code = int(head.split(b" ", 2)[1])
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return code, await reader.readexactly(length), b"connection: close" in head


async def http_worker(
    port: int, chance: random.Random, tally: Tally, count: int, end: float
) -> None:
    """Sends `count` requests, several at a time on one connection, as pipelining allows."""
    connection: Connection | None = None
    while count > 0 and time.monotonic() < end:
        group, ends = requests(chance, min(count, chance.randint(1, MOST_AT_ONCE)))
        count -= len(group)
        while group:
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", port)
                answered, goes_on = await ask(connection, group, tally)
            except OSError as error:
                tally.wrong.append(f"{type(error).__name__} before {group[0][:300]!r}")
                answered, goes_on = 1, False
            # What came after an answer with which the server closes goes on another connection.
            group = group[answered:]
            if connection is not None and (not goes_on or (ends and not group)):
                connection[1].close()
                connection = None


def requests(chance: random.Random, count: int) -> tuple[list[bytes], bool]:
    """At most `count` that can go on one connection, and whether it is of no use after them."""
    group = []
    for _ in range(count):
        message, ends = request(chance)
        group.append(message)
        if ends:
            return group, True
    return group, False


async def ask(connection: Connection, group: list[bytes], tally: Tally) -> tuple[int, bool]:
    """How many of `group` were answered, and whether the connection can be used again."""
    reader, writer = connection
    began = time.monotonic()
    writer.write(b"".join(group))
    for number, message in enumerate(group, 1):
        try:
            async with asyncio.timeout(LONGEST):
                code, body, closes = await answer(reader)
        except TimeoutError:
            tally.wrong.append(f"no answer in {LONGEST:g} s: {message[:300]!r}")
            return number, False
        except (OSError, asyncio.IncompleteReadError) as error:
            tally.wrong.append(f"{type(error).__name__} after {message[:300]!r}")
            return number, False
        tally.sent += 1
        tally.codes[str(code)] += 1
        tally.slowest = max(tally.slowest, time.monotonic() - began)
        if code not in OKAY or not is_json(body) or b"Traceback" in body:
            tally.wrong.append(f"{code} {body[:200]!r} after {message[:300]!r}")
        if closes:
            return number, False
    return len(group), True


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


async def grpc_worker(
    port: int, chance: random.Random, tally: Tally, count: int, end: float
) -> None:
    good = service_pb2.ModelInferRequest(model_name="demo")
    for name, text in (("query", b"a"), ("passage", b"b d")):
        good.inputs.add(name=name, datatype="BYTES", shape=[1, 1])
        good.raw_input_contents.append(len(text).to_bytes(4, "little") + text)
    good.parameters["truncate"].string_param = "END"
    data = good.SerializeToString()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        methods = [
            channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
            for name in ("ModelInfer", "ModelInfer", "ModelMetadata", "ModelReady")
        ]
        for _ in range(count):
            if time.monotonic() > end:
                return
            try:
                await chance.choice(methods)(damaged(chance, data), timeout=LONGEST)
                code = "OK"
            except grpc.aio.AioRpcError as error:
                code = error.code().name
            tally.sent += 1
            tally.codes[code] += 1
            if code in {"UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED", "UNAVAILABLE"}:
                tally.wrong.append(f"gRPC {code}")


async def read_log(gateway: GatewayProcess, tally: Tally) -> None:
    stream = gateway.process.stderr
    while stream is not None and (line := await stream.readline()):
        if b'"exception"' in line or b"Traceback" in line:
            tally.wrong.append(f"log: {line[:1000]!r}")


def resident_mib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


async def run(arguments: argparse.Namespace) -> int:
    tally = Tally()
    triton = TritonProcess(free_port())
    await triton.start()
    with tempfile.TemporaryDirectory() as folder:
        write_engine(Path(folder))
        settings = {"READ_IDLE_SECONDS": 3, "LOG_LEVEL": "WARNING"}
        gateway = await start_process(Path(folder), triton.port, settings)
        log = asyncio.create_task(read_log(gateway, tally))
        await gateway.until_ready()
        before, began = resident_mib(gateway.process.pid), time.monotonic()
        end = began + arguments.seconds
        workers = arguments.connections
        share = arguments.requests // (workers + 2)
        chances = [random.Random(f"{arguments.seed}/{at}") for at in range(workers + 2)]  # noqa: S311
        await asyncio.gather(
            *(http_worker(gateway.port, chance, tally, share, end) for chance in chances[2:]),
            *(grpc_worker(gateway.grpc_port, chance, tally, share, end) for chance in chances[:2]),
        )
        seconds, after = time.monotonic() - began, resident_mib(gateway.process.pid)
        good = await gateway.client.post("/v1/ranking", json=NIM)
        if good.status_code != 200:
            tally.wrong.append(f"a good request at the end: {good.status_code}")
        if after > before + arguments.most_mib:
            tally.wrong.append(f"memory: {before} MiB before, {after} MiB after")
        await gateway.client.aclose()
        gateway.process.terminate()
        await gateway.process.wait()
        await log
    await triton.stop()
    print(f"{tally.sent} requests in {seconds:.0f} s, slowest HTTP answer {tally.slowest:.2f} s")
    print(f"resident memory {before} MiB before, {after} MiB after")
    print(", ".join(f"{code}: {count}" for code, count in sorted(tally.codes.items())))
    for problem in tally.wrong[:20]:
        print(f"WRONG {problem}")
    print(f"{len(tally.wrong)} wrong")
    return 1 if tally.wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=600, help="end after this many anyway")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--most-mib", type=int, default=256, help="growth that is still well")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
