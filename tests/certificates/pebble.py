"""Pebble, the ACME server for tests of Let's Encrypt, as a process on the loopback address.

`make pebble` installs it with Go. A name server of its own, which comes with it, resolves every
name to this machine.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import CertificateAuthority
from tests.support.program import CHECKOUT, free_port

START_SECONDS = 20.0
MAC_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"


def program(name: str) -> str | None:
    """The path of one of its programs; `None` if it is not installed."""
    return shutil.which(name, path=f"{CHECKOUT / '.pebble'}{os.pathsep}{os.environ['PATH']}")


needs_pebble = pytest.mark.skipif(
    program("pebble") is None or program("pebble-challtestsrv") is None,
    reason="Pebble is not installed: `make pebble` needs Go",
)


class Pebble:
    """A running server, which validates names at `http_port` of this machine."""

    def __init__(self, ca_file: Path, http_port: int, port: int, management_port: int) -> None:
        self.ca_file = ca_file
        self.directory = f"https://127.0.0.1:{port}/dir"
        self.http_port = http_port
        self._management = f"https://127.0.0.1:{management_port}"

    def settings(self, **others: Any) -> dict[str, Any]:
        """The section `acme` of a server that uses it."""
        return {
            "agree_to_terms": True,
            "directory": self.directory,
            "ca_file": str(self.ca_file),
            **others,
        }

    def client_context(self) -> ssl.SSLContext:
        """For clients that trust the certificates that it issues."""
        trusting = ssl.create_default_context(cafile=self.ca_file)
        url = f"{self._management}/roots/0"
        with urllib.request.urlopen(url, context=trusting, timeout=5) as response:
            return ssl.create_default_context(cadata=response.read().decode())


@contextlib.contextmanager
def running_pebble(
    folder: Path,
    *,
    lifetime: int = 7_776_000,
    external_accounts: bool = False,
    refused_nonces: int = 5,
    blocked: tuple[str, ...] = (),
) -> Iterator[Pebble]:
    """A server whose certificates are valid for `lifetime` seconds, within the `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    http_port, port, management_port, dns_port = (free_port() for _ in range(4))
    authority = CertificateAuthority(folder)
    files = authority.issue(file_name="pebble")
    pebble = Pebble(authority.path, http_port, port, management_port)
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management_port}",
        "certificate": str(files.certificate),
        "privateKey": str(files.private_key),
        "httpPort": http_port,
        "tlsPort": free_port(),
        "externalAccountBindingRequired": external_accounts,
        "externalAccountMACKeys": {"kid-1": MAC_KEY} if external_accounts else {},
        "domainBlocklist": [*blocked],
        "retryAfter": {"authz": 1, "order": 1},
        "keyAlgorithm": "ecdsa",
        "profiles": {"default": {"description": "", "validityPeriod": lifetime}},
    }
    config_path = folder / f"pebble-{secrets.token_hex(4)}.json"
    config_path.write_text(json.dumps({"pebble": config}))
    commands = [
        [
            *(str(program("pebble-challtestsrv")), "-defaultIPv6", "", "-http01", ""),
            *("-https01", "", "-tlsalpn01", "", "-doh", ""),
            *("-management", f"127.0.0.1:{free_port()}", "-dnsserver", f"127.0.0.1:{dns_port}"),
        ],
        [
            *(str(program("pebble")), "-config", str(config_path)),
            *("-dnsserver", f"127.0.0.1:{dns_port}"),
        ],
    ]
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": str(refused_nonces)}
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "pebble.log").open("ab"))
        for command in commands:
            process = stack.enter_context(
                subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **quick})
            )
            stack.callback(process.terminate)
        _wait_until_it_listens(port, process)
        yield pebble


def _wait_until_it_listens(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "Pebble has ended"
        assert time.monotonic() < deadline, "Pebble does not start"
        time.sleep(0.05)
