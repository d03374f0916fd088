"""Addresses of one cluster, and the choice of a range that nothing here uses yet.

Every cluster gets one /16 of 10.160.0.0 - 10.223.255.255, numbered by an index::

    10.<160+index>.0.0/18      pods (the node's share is the first /24)
    10.<160+index>.128.0/18    Services; .128.1 the API server, .128.10 the DNS
    10.<160+index>.255.0/30    the link: .1 the host, .2 the node

so that the host needs a single route to reach pods and Services alike.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

INDEXES = 64
_FIRST_OCTET = 160
_BLOCK_PREFIX = 16
API_PORT = 6443


@dataclass(frozen=True)
class Addresses:
    """All addresses of the cluster with this index."""

    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < INDEXES:
            raise ValueError(f"index {self.index} is not in 0..{INDEXES - 1}")

    @property
    def _prefix(self) -> str:
        return f"10.{_FIRST_OCTET + self.index}"

    @property
    def block(self) -> ipaddress.IPv4Network:
        """Everything of this cluster."""
        return ipaddress.IPv4Network(f"{self._prefix}.0.0/16")

    @property
    def pods(self) -> str:
        return f"{self._prefix}.0.0/18"

    @property
    def node_pods(self) -> str:
        return f"{self._prefix}.0.0/24"

    @property
    def services(self) -> str:
        return f"{self._prefix}.128.0/18"

    @property
    def api_service(self) -> str:
        return f"{self._prefix}.128.1"

    @property
    def dns_service(self) -> str:
        return f"{self._prefix}.128.10"

    @property
    def host(self) -> str:
        return f"{self._prefix}.255.1"

    @property
    def node(self) -> str:
        return f"{self._prefix}.255.2"

    @property
    def link_prefix(self) -> int:
        """Length in bits of the prefix of the link between host and node."""
        return 30

    @property
    def interface(self) -> str:
        """Name of the host's end of the link. Only one cluster can create it: it is the claim."""
        return f"localcluster{self.index}"

    @property
    def api_url(self) -> str:
        return f"https://{self.node}:{API_PORT}"


def choose_index(
    preferred: int, used_networks: Iterable[str], used_interfaces: Iterable[str]
) -> int | None:
    """Return the first free index from ``preferred`` on, or None when all are taken.

    ``used_networks`` are the host's routes and addresses in CIDR form; the
    default route is not a use. Where a route covers all of them (a VPN for
    10.0.0.0/8), a range inside that wider route is taken after all: the
    cluster's own route is the more specific one.
    """
    networks = [
        network
        for network in (ipaddress.ip_network(text, strict=False) for text in used_networks)
        if isinstance(network, ipaddress.IPv4Network) and network.prefixlen > 0
    ]
    claimed = set(used_interfaces)
    order = [Addresses((preferred + step) % INDEXES) for step in range(INDEXES)]
    unclaimed = [addresses for addresses in order if addresses.interface not in claimed]
    narrow = [network for network in networks if network.prefixlen >= _BLOCK_PREFIX]
    for used in (networks, narrow):
        for addresses in unclaimed:
            if not any(addresses.block.overlaps(network) for network in used):
                return addresses.index
    return None
