"""The engine protocol over Triton's gRPC interface, one connection for the life of the process."""

import logging
from typing import Final

import grpc
import httpx
import numpy as np
import tritonclient.grpc as triton_types
from tritonclient.grpc import aio as triton
from tritonclient.utils import InferenceServerException

from reranker_contracts import ServedModel
from reranker_gateway.engine import Batch, FloatArray
from reranker_gateway.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from reranker_gateway.tokenise import IntArray

MODEL: Final = "reranker"
_OUTPUT: Final = "logits"
_READY_TIMEOUT: Final = 5.0
_METRICS_TIMEOUT: Final = 2.0
#: A restarted Triton is found within a second; gRPC's default backs off to two minutes.
_CHANNEL: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
#: Codes that say nothing about the batch: the call may be repeated elsewhere or later.
#: A model that is not known is one that Triton has lost, or unloads on its way out.
_AWAY: Final = frozenset({"UNAVAILABLE", "CANCELLED", "NOT_FOUND"})
_LATE: Final = "DEADLINE_EXCEEDED"
_log = logging.getLogger(__name__)


class TritonEngine:
    """Scores batches on the model `reranker` of one Triton."""

    def __init__(
        self, *, url: str, metrics_url: str, model: ServedModel, infer_timeout: float
    ) -> None:
        self._client = triton.InferenceServerClient(url, channel_args=list(_CHANNEL))
        self._http = httpx.AsyncClient(timeout=_METRICS_TIMEOUT, trust_env=False)
        self._metrics_url = metrics_url
        self._labels = model.labels
        self._label = model.label
        self._inputs = frozenset(model.inputs)
        self._outputs = [triton_types.InferRequestedOutput(_OUTPUT)]
        self._infer_timeout = infer_timeout

    async def ready(self) -> bool:
        """Whether Triton has loaded the model. Raises EngineTimeoutError when it hangs."""
        try:
            return bool(await self._client.is_model_ready(MODEL, client_timeout=_READY_TIMEOUT))
        except (InferenceServerException, grpc.RpcError) as error:
            if _code(error) == _LATE:
                raise EngineTimeoutError("Triton did not say whether it is ready") from error
            return False

    async def infer(self, batch: Batch) -> FloatArray:
        """Score per row. Errors are translated here; Triton's texts go to the log only."""
        try:
            result = await self._client.infer(
                MODEL,
                self._tensors(batch),
                outputs=self._outputs,
                client_timeout=self._infer_timeout,
            )
        except (InferenceServerException, grpc.RpcError) as error:
            raise _translated(error) from error
        return self._scores(result, batch.rows)

    async def metrics(self) -> str:
        """Triton's metrics; empty when it does not answer."""
        if not self._metrics_url:
            return ""
        try:
            answer = await self._http.get(self._metrics_url)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            _log.debug("no metrics from Triton: %s", type(error).__name__)
            return ""
        return answer.text

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
        await self._http.aclose()

    def _scores(self, result: triton_types.InferResult, rows: int) -> FloatArray:
        try:
            logits = result.as_numpy(_OUTPUT)
        except (ValueError, InferenceServerException) as error:
            raise EngineError("the engine's answer cannot be read") from error
        shape, kind = (None, None) if logits is None else (logits.shape, logits.dtype.kind)
        if shape != (rows, self._labels) or kind != "f":
            raise EngineError(
                f"the engine answered with shape {shape}, expected {(rows, self._labels)} of floats"
            )
        scores: FloatArray = logits[:, self._label].astype(np.float32, copy=False)
        return scores

    def _tensors(self, batch: Batch) -> list[triton_types.InferInput]:
        arrays: list[tuple[str, IntArray | None]] = [
            ("input_ids", batch.input_ids),
            ("attention_mask", batch.attention_mask),
            ("token_type_ids", batch.token_type_ids),
        ]
        tensors = []
        for name, array in arrays:
            if array is not None and name in self._inputs:
                tensor = triton_types.InferInput(name, list(array.shape), "INT32")
                tensor.set_data_from_numpy(array)
                tensors.append(tensor)
        return tensors


def _translated(error: InferenceServerException | grpc.RpcError) -> EngineError:
    code = _code(error)
    _log.warning("batch failed in Triton (%s): %s", code, str(error)[:500])
    if code == _LATE:
        return EngineTimeoutError("the engine did not answer in time; retry later")
    if code in _AWAY:
        return EngineUnavailableError("the engine is not answering; retry in a moment")
    return EngineError("the engine failed on a batch with this request; see the server's log")


def _code(error: InferenceServerException | grpc.RpcError) -> str:
    status = str(error.status()) if isinstance(error, InferenceServerException) else "UNAVAILABLE"
    return status.rpartition(".")[2]
