"""Interface offloads switched off, so that one packet on an emulated link is one packet.

With segmentation offload a veth pair passes one 64 kB packet where a wire would carry 45, and netem would count,
delay and lose it as one; with checksum offload a raw socket would read packets whose checksum nobody has filled in.
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from topo.errors import NetworkError

SIOCETHTOOL = 0x8946  # linux/sockios.h
_SETTERS = {  # linux/ethtool.h: (set, get)
    "tx checksum": (0x17, 0x16),
    "scatter-gather": (0x19, 0x18),
    "TCP segmentation": (0x1F, 0x1E),
    "generic segmentation": (0x24, 0x23),
    "generic receive": (0x2C, 0x2B),
}


def switch_off(interface: str) -> None:
    """Switch the offloads of an interface of the calling thread's namespace off, and read them back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for name, (set_command, get_command) in _SETTERS.items():
            _ethtool(handle, interface, set_command, 0, name)
            if _ethtool(handle, interface, get_command, 0, name):
                raise NetworkError(f"{interface}: {name} offload stays on")


def _ethtool(handle: socket.socket, interface: str, command: int, value: int, name: str) -> int:
    argument = array.array("I", [command, value])
    address, _ = argument.buffer_info()
    request = struct.pack("16sP8x", interface.encode(), address)
    try:
        fcntl.ioctl(handle, SIOCETHTOOL, request)
    except OSError as error:
        raise NetworkError(f"{interface}: {name} offload cannot be set: {error}") from error
    return argument[1]
