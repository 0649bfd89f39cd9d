"""Registrations of bridges, which running servers read at SIGHUP."""

import json
import os
import re
import signal
import time
from typing import Any

from tests.support.program import ServerDied
from tests.support.sites import Site

WAIT_SECONDS = 20.0
READ = re.compile(r"application services: (.*)")


def register(site: Site, registration: dict[str, Any]) -> None:
    """Give a running server the registration of a bridge, and wait until it has read it."""
    folder = site.program.directory / "appservices.d"
    folder.mkdir(exist_ok=True)
    # JSON is YAML.
    (folder / f"{registration['id']}.yaml").write_text(json.dumps(registration))
    _reload(site)


def unregister(site: Site, registration: dict[str, Any]) -> None:
    """Take the registration away."""
    (site.program.directory / "appservices.d" / f"{registration['id']}.yaml").unlink()
    _reload(site)


def _reload(site: Site) -> None:
    log = site.program.directory / "server.log"
    before = len(READ.findall(log.read_text()))
    os.kill(site.program.pid, signal.SIGHUP)
    deadline = time.monotonic() + WAIT_SECONDS
    while len(READ.findall(log.read_text())) == before:
        if time.monotonic() > deadline:
            raise ServerDied(f"{site.name} does not read its registrations")
        time.sleep(0.05)
