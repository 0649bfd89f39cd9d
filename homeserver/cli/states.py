"""`homeserver state sweep`: removes unused state nodes, on a running or a stopped server."""

from pathlib import Path
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.rooms.state.garbage_collection import DamagedState, StateNodeCollector


def collect_state_nodes(config: Path | None) -> int:
    """Collect garbage from the start, or continue a collection; returns the exit status."""
    settings = load_installed(config)
    try:
        collector = run_in_reactor(lambda reactor: _collect(reactor, settings))
    except DamagedState as damage:
        raise CommandError(f"{damage}: restore a backup. Nothing was removed.") from None
    print(f"Removed {collector.removed:,} state nodes, kept {collector.marked:,}")
    return 0


async def _collect(reactor: Any, settings: Settings) -> StateNodeCollector:
    async with open_database(reactor, settings) as db:
        collector = StateNodeCollector(db)
        if not await collector.begin():
            raise CommandError("The database is too busy; try again in a moment")
        while await collector.step():
            pass
    return collector
