"""The link between the host and a node, and the claim of its address range.

A veth pair joins the two: the host's end carries the range's index in its
name, so that the kernel lets only one cluster make it, and the cluster's
directory as its alias, so that everybody sees whose it is. It goes away with
the node's network namespace, and the host's only route with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localcluster import addressing, commands
from localcluster.addressing import Addresses
from localcluster.errors import ClusterError, PrerequisiteError
from localcluster.namespaces import Node

_LOCK_TIMEOUT_SECONDS = 30
_NODE_SYSCTLS = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.route_localnet": "1"}


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Hold, against every cluster of this machine, the right to choose a range."""
    descriptor = os.open("/run", os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ClusterError(
                        "another cluster command has been setting up its network for "
                        f"{_LOCK_TIMEOUT_SECONDS} s; try again when it has ended"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def choose(preferred: int) -> Addresses:
    """Pick a range that is free on this host, ``preferred`` if that one is."""
    index = addressing.choose_index(preferred, _used_networks(), _aliases())
    if index is None:
        raise PrerequisiteError(
            "every address range of 10.160.0.0 - 10.223.255.255 is in use on this host: "
            "take down a cluster, or remove a route (ip route) inside it"
        )
    return Addresses(index)


def conflict(addresses: Addresses) -> str | None:
    """Say what stands against taking a range that was chosen earlier; None if nothing does."""
    alias = _aliases().get(addresses.interface)
    if alias is not None:
        return f"interface {addresses.interface} belongs to {alias or 'somebody else'}"
    if addressing.choose_index(addresses.index, _used_networks(), ()) != addresses.index:
        return f"addresses of {addresses.block} are in use (see: ip route)"
    return None


def connect(node: Node, addresses: Addresses, owner: Path) -> None:
    """Join host and node, and route the cluster's range to the node."""
    link, prefix = addresses.interface, addresses.link_prefix
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(node.pid))
    _ip("link", "set", "dev", link, "alias", _alias(owner))
    _ip("address", "add", f"{addresses.host}/{prefix}", "dev", link)
    _ip("link", "set", "dev", link, "up")
    node.capture("ip", "link", "set", "dev", "lo", "up")
    node.capture("ip", "address", "add", f"{addresses.node}/{prefix}", "dev", "eth0")
    node.capture("ip", "link", "set", "dev", "eth0", "up")
    node.capture("ip", "route", "add", "default", "via", addresses.host)
    for name, value in _NODE_SYSCTLS.items():
        node.capture("sysctl", "-q", "-w", f"{name}={value}")
    _ip("route", "add", str(addresses.block), "via", addresses.node, "dev", link)


def disconnect(owner: Path) -> list[str]:
    """Remove every link that belongs to the cluster in this directory; return their names."""
    mine = [name for name, alias in _aliases().items() if alias == _alias(owner)]
    for name in mine:
        # The kernel may be taking it away with its namespace at this very moment.
        commands.succeeds(["ip", "link", "delete", "dev", name])
    left = [name for name in mine if Path("/sys/class/net", name).exists()]
    if left:
        raise ClusterError(f"network link {left[0]} cannot be removed: ip link delete {left[0]}")
    return mine


def is_connected(addresses: Addresses, owner: Path) -> bool:
    """Tell whether the link is there and ours."""
    return _aliases().get(addresses.interface) == _alias(owner)


def _alias(owner: Path) -> str:
    """The link's alias; the kernel keeps 255 bytes of it."""
    return f"local-cluster {str(owner)[-200:]}"


def _ip(*arguments: str) -> None:
    commands.capture(["ip", *arguments])


def _query(*arguments: str) -> list[dict[str, Any]]:
    value = json.loads(commands.capture(["ip", "-json", *arguments]) or "[]")
    return [entry for entry in value if isinstance(entry, dict)]


def _used_networks() -> list[str]:
    """Every destination that the host routes, its own addresses included."""
    routes = _query("-4", "route", "show", "table", "all")
    return [str(route["dst"]) for route in routes if route["dst"] != "default"]


def _aliases() -> dict[str, str]:
    """Every interface of the host, with its alias."""
    return {str(link["ifname"]): str(link.get("ifalias", "")) for link in _query("link", "show")}
