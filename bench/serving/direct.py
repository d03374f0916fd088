"""One pair at a time, by clients that take little time themselves.

Triton is asked directly: the engine's tensors over gRPC, nothing of the gateway.
"""

import http.client
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import tritonclient.grpc as triton
from bare import feeds_of, tokenised
from load import percentile
from workloads import Asked

_MODEL = "reranker"
_SECONDS = 60


def triton_ms(port: int, engine: Path, asked: list[Asked]) -> float:
    """Median of one pair at a time, ids ready; the same pairs as the gateway gets."""
    pairs = tokenised(engine, [asdict(one) for one in asked])
    # In no order, as the gateway gets them: a length that was seen just before is faster.
    random.Random(1).shuffle(pairs)  # noqa: S311
    times = []
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        for pair in pairs:
            inputs = []
            for name, values in feeds_of([pair]).items():
                entry = triton.InferInput(name, list(values.shape), "INT32")
                inputs.append(entry.set_data_from_numpy(values))
            began = time.perf_counter()
            client.infer(_MODEL, inputs)
            times.append((time.perf_counter() - began) * 1000)
    return percentile(times, 0.5)


def gateway_ms(url: str, bodies: Sequence[bytes]) -> float:
    """Median of one request at a time on one connection. Raises RuntimeError unless answered."""
    address = urlsplit(url)
    times = []
    connection = http.client.HTTPConnection(address.netloc, timeout=_SECONDS)
    try:
        for body in bodies:
            began = time.perf_counter()
            connection.request("POST", address.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            times.append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"{url}: {answer.status} {said[:200]!r}")
    finally:
        connection.close()
    return percentile(times, 0.5)
