"""A small server that stands for a pod behind the activator."""

import asyncio
from collections import deque

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Pod:
    """Says that it is ready, and to requests what the test has it say; as it is, byte by byte."""

    def __init__(self) -> None:
        self.url = ""
        self.ready = True
        self.heads: list[str] = []
        #: For the next requests, None for silence; then `OK`.
        self.answers: deque[bytes | None] = deque()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = head.lower().partition("content-length: ")[2].partition("\r")[0] or "0"
        await reader.readexactly(int(length))
        if "/v1/health/ready" in head:
            status = b"200 OK" if self.ready else b"503 Service Unavailable"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        else:
            self.heads.append(head)
            answer = self.answers.popleft() if self.answers else OK
            if answer is None:
                await reader.read()
            writer.write(answer or b"")
        writer.close()
