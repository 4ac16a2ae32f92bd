"""Addresses of clients, made less exact for those who ask for it."""

from __future__ import annotations

import ipaddress
from typing import Final

_KEPT_BITS: Final = {4: 24, 6: 48}


def without_host_part(address: str) -> str:
    """The network that an address is in: 24 bits of IPv4, 48 of IPv6, the rest zero; empty for what is no address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    network = ipaddress.ip_network((parsed, _KEPT_BITS[parsed.version]), strict=False)
    return str(network.network_address)
