"""Ports for servers of a test, of which no two get the same one.

They lie below the range from which Linux takes the ports of clients: otherwise a connection made
between the choice and the server's start may sit on the server's port.
"""

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

_FIRST = 15_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _candidates() -> Iterator[int]:
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    # Test runs side by side begin at other places.
    ports = range(min(_FIRST, end - 10_000), end)
    start = os.getpid() * 97 % len(ports)
    return itertools.cycle([*ports[start:], *ports[:start]])


_ports = _candidates()


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port on which nothing listens at `address`; never the same one twice in a process."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port


def free_ports(count: int) -> list[int]:
    """So many of them."""
    return [free_port() for _ in range(count)]
