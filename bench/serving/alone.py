"""The gateway alone: pairs per second and core, with and without tokenisation.

    python bench/serving/alone.py ENGINE [--seconds 15] [--profile FILE]

50 pairs of 100 tokens in a request, a Triton that answers at once, four clients. What counts is
processor time of the gateway's process, so other processes of the machine disturb little.
Tokenisation has a counter of its own; beside it stands the bare `tokenizers` library on the same
texts, on one thread.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from load import Outcome, Target, closed
from processes import counters, cpu_seconds, end_with_servers, free_port, gateway, running
from tokenizers import Tokenizer
from workloads import QUERY, WORDS, Asked

_PAIRS, _TOKENS, _BODIES = 50, 100, 400
_HERE = Path(__file__).parent


def asked() -> list[Asked]:
    """Requests of which no two pairs are equal."""
    chance = random.Random(7)  # noqa: S311
    return [
        Asked(QUERY, [" ".join(chance.choices(WORDS, k=_TOKENS - 8)) for _ in range(_PAIRS)])
        for _ in range(_BODIES)
    ]


def bare_tokens_per_second(engine: Path, requests: list[Asked]) -> float:
    """Of the library, on one thread: texts in, ids out."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = [[request.query, *request.passages] for request in requests[:100]]
    began, tokens = time.thread_time(), 0
    for batch in texts:
        encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        tokens += sum(len(encoding.ids) for encoding in encodings)
    return tokens / (time.thread_time() - began)


def measure(engine: Path, seconds: float, profile: Path | None) -> dict[str, float]:
    """One run."""
    requests = asked()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        instant = [sys.executable, _HERE / "instant.py", str(port)]
        with (
            running(instant, log=logs / "triton.log"),
            gateway(engine, port, logs / "gateway.log", profile) as (process, url),
        ):
            name = json.loads((engine / "model.json").read_text())["name"]
            target = Target(
                f"{url}/v1/ranking", [one.ranking(name) for one in requests], [_PAIRS] * _BODIES
            )
            before, cpu = counters(url), cpu_seconds(process.pid)
            outcome: Outcome = asyncio.run(closed(target, 4, seconds))
            after, cpu = counters(url), cpu_seconds(process.pid) - cpu
    if outcome.failed or outcome.refused:
        raise RuntimeError(f"failed: {outcome.failed}, refused: {len(outcome.refused)}")
    delta = {key: after[key] - before.get(key, 0.0) for key in after}
    pairs = delta["reranker_passages_total"]
    tokenise = delta["reranker_tokenise_cpu_seconds_total"]
    tokens = delta["reranker_tokens_total"]
    bare = bare_tokens_per_second(engine, requests)
    # Query and template are in every pair, and tokenised once for all of them.
    passage_tokens = tokens - pairs * 8
    return {
        "pairs per core second": pairs / cpu,
        "without tokenisation": pairs / (cpu - tokenise),
        "tokens per core second of tokenisation": passage_tokens / tokenise,
        "of the bare library": bare,
        "pairs per second": outcome.pairs_per_second,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    end_with_servers()
    print(json.dumps(measure(arguments.engine, arguments.seconds, arguments.profile), indent=2))


if __name__ == "__main__":
    main()
