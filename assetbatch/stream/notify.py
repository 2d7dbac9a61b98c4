"""What systemd is told of a service with `Type=notify`: sd_notify(3), one datagram each."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def tell(*lines: str) -> None:
    """Tell the service manager that started us, where there is one; it never fails, nor waits for who does not read."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as channel:
        channel.sendto("\n".join(lines).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
