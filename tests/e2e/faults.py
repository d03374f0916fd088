"""Makes a gateway worse: mounted as `sitecustomize.py`, which Python imports before all else.

FAULT: `crash` ends the process, `unready` never finds Triton ready, `slow` doubles the time of each
batch, `errors` fails each 20th request, `paced` takes its time for each token, whatever else the
processor has to do.
"""

import asyncio
import itertools
import os
import sys

_FAULT = os.environ["FAULT"]

if _FAULT == "crash":
    sys.stderr.write("made to crash\n")
    sys.stderr.flush()
    os._exit(1)

from reranker_gateway.engine import Batch, FloatArray  # noqa: E402 - a crash comes before it
from reranker_gateway.errors import EngineError  # noqa: E402
from reranker_gateway.scoring import Scorer  # noqa: E402
from reranker_gateway.tokenise import TokenisedRequest  # noqa: E402
from reranker_gateway.triton import TritonEngine  # noqa: E402

#: Tokens per second of a pod.
_PACE = 3000
_infer = TritonEngine.infer
_turn = asyncio.Lock()
_score = Scorer.score
_requests = itertools.count(1)


async def _worse(self: TritonEngine, batch: Batch) -> FloatArray:
    if _FAULT == "paced":
        async with _turn:
            await asyncio.sleep(int(batch.attention_mask.sum()) / _PACE)
    began = asyncio.get_running_loop().time()
    result = await _infer(self, batch)
    if _FAULT == "slow":
        await asyncio.sleep(asyncio.get_running_loop().time() - began)
    return result


async def _unready(self: TritonEngine) -> bool:
    return False


async def _failing(self: Scorer, inputs: TokenisedRequest) -> object:
    # Not a batch: each of its requests would be tried again alone.
    if next(_requests) % 20 == 0:
        raise EngineError("made to fail")
    return await _score(self, inputs)


if _FAULT == "errors":
    Scorer.score = _failing  # type: ignore[method-assign, assignment]
if _FAULT == "unready":
    TritonEngine.ready = _unready  # type: ignore[method-assign]
TritonEngine.infer = _worse  # type: ignore[method-assign]
