"""`homeserver state sweep`: removes state nodes that nobody needs, on a running server or not."""

from pathlib import Path
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.rooms.state.garbage_collection import DamagedState, StateNodeCollector


def sweep_states(config: Path | None) -> int:
    """Sweep from the start, or go on with the sweep that is under way; returns the exit status."""
    settings = load_installed(config)
    try:
        sweep = run_in_reactor(lambda reactor: _sweep(reactor, settings))
    except DamagedState as damage:
        raise CommandError(f"{damage}: restore a backup. Nothing was removed.") from None
    print(f"Removed {sweep.removed:,} state nodes, kept {sweep.marked:,}")
    return 0


async def _sweep(reactor: Any, settings: Settings) -> StateNodeCollector:
    async with open_database(reactor, settings) as db:
        sweep = StateNodeCollector(db)
        if not await sweep.begin():
            raise CommandError("The database is too busy; try again in a moment")
        while await sweep.step():
            pass
    return sweep
