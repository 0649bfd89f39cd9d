"""Has look-ups of `*.slow.example` hang: put this folder on PYTHONPATH of a process.

Python runs this module before all others. Name servers of attackers do the same to a real server.
"""

import socket
import time

_getaddrinfo = socket.getaddrinfo


def _hanging(host, *args, **kwargs):  # type: ignore[no-untyped-def]
    if str(host).endswith(".slow.example"):
        time.sleep(120)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")
    return _getaddrinfo(host, *args, **kwargs)


socket.getaddrinfo = _hanging
