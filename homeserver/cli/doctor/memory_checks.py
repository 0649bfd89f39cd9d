"""What the memory of the running server is used for, as its metrics say."""

import http.client
import re
import ssl
from collections.abc import Iterator

from homeserver.cli.doctor.findings import Finding, ok
from homeserver.config.sections.listeners import Listener
from homeserver.config.settings import Settings

TIMEOUT = 5.0  # seconds
MAX_RESPONSE_BYTES = 4_194_304
SHOWN = 5  # caches
RESIDENT = re.compile(r"^process_resident_memory_bytes (\S+)$", re.MULTILINE)
AT_START = re.compile(r"^homeserver_memory_at_start_bytes (\S+)$", re.MULTILINE)
CACHE = re.compile(r'^homeserver_cache_bytes\{cache="(\w+)"\} (\S+)$', re.MULTILINE)
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - they are replaced


def check_memory(settings: Settings) -> Iterator[Finding]:
    """The memory of the server, and its largest caches, if a listener has metrics."""
    for listener in settings.listeners:
        if "metrics" in listener.resources and listener.path is None and listener.port:
            metrics = _metrics(listener)
            resident = RESIDENT.search(metrics)
            if resident is not None:
                at_start = AT_START.search(metrics)
                yield ok(
                    "memory",
                    _summary(
                        float(resident[1]),
                        float(at_start[1]) if at_start is not None else 0.0,
                        CACHE.findall(metrics),
                    ),
                )
                return


def _summary(resident: float, at_start: float, caches: list[tuple[str, str]]) -> str:
    sizes = sorted(((float(size), name) for name, size in caches), reverse=True)
    largest = ", ".join(f"{name} {_mib(size)}" for size, name in sizes[:SHOWN])
    total = sum(size for size, _ in sizes)
    return (
        f"{_mib(resident)}: {_mib(at_start)} from the start, mostly code; since then "
        f"{_mib(resident - at_start)}, of which about {_mib(total)} in caches: {largest}"
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def _metrics(listener: Listener) -> str:
    """The text of the metrics; empty if the server does not respond."""
    host = WILDCARDS.get(listener.addresses[0], listener.addresses[0])
    connection: http.client.HTTPConnection
    if listener.tls is None:
        connection = http.client.HTTPConnection(host, listener.port or 0, timeout=TIMEOUT)
    else:
        # This is the local machine; whether others trust the certificate is not checked here.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(
            host, listener.port or 0, timeout=TIMEOUT, context=context
        )
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read(MAX_RESPONSE_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
