"""Moves of an application service to another position: to leave out events, or send them again.

The request is stored, and a server on this machine is notified by SIGHUP. Otherwise it is carried
out at the next start.
"""

import os
import signal
from typing import Any

from homeserver.cli.database import open_database
from homeserver.cli.plain_text import plain
from homeserver.config.settings import Settings
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.storage.appservices.transactions import request_move
from homeserver.storage.database.workers import Worker, find_living_worker


async def move(
    reactor: Any, settings: Settings, appservice: Appservice, position: int | None
) -> list[str]:
    """Request the move; `None` is the position of the moment. Returns what to print."""
    name = plain(appservice.id)
    what = "What waits is left out" if position is None else "Its events are sent again"
    async with open_database(reactor, settings) as db:
        await db.run(request_move, appservice.id, position)
        server = await db.run(find_living_worker)
        if server is None or server.has_ended:
            return [f"{name}: {what.lower()} at the next start of the server"]
        if _notify(server):
            return [f"{name}: {what.lower()} now"]
    return [f"{name}: {what.lower()} when the server, {server}, gets SIGHUP or starts again"]


def _notify(server: Worker) -> bool:
    """Send SIGHUP to the process, if it is on this machine and may be sent signals."""
    if not server.is_here:
        return False
    try:
        os.kill(server.pid, signal.SIGHUP)
    except (ProcessLookupError, PermissionError):
        return False
    return True
