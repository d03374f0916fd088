"""A Triton that answers at once, with zeros: what remains is the gateway.

python bench/serving/instant.py PORT
"""

import asyncio
import sys
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc


class Instant(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Knows any model."""

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=True)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        rows = request.inputs[0].shape[0]
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        answer.outputs.add(name="logits", datatype="FP32", shape=[rows, 1])
        answer.raw_output_contents.append(bytes(4 * rows))
        return answer


async def serve(port: int) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Instant(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
