"""Which source of prices a base URL names."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

# One vendor, renamed: all its names answer with the same data.
SAME_SOURCE = dict.fromkeys(
    ("api.polygon.io", "socket.massive.com", "delayed.massive.com", "socket.polygon.io", "delayed.polygon.io"),
    "api.massive.com",
)
SANDBOX_SOURCE = "sandbox"


def source_of(base_url: str) -> str:
    """Name the source of prices behind a base URL: the vendor by its new name, any loopback address as the sandbox."""
    host = (urlsplit(base_url).hostname or "").lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
        # An IPv4 address may be written as an IPv6 one: ::ffff:127.0.0.1.
        loopback = (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return SANDBOX_SOURCE if loopback else SAME_SOURCE.get(host, host)
