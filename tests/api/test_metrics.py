"""Metrics of a running server."""

import ast
from collections.abc import Iterator
from typing import Any, ClassVar

from homeserver.observability.caches import caches_and_tasks_of
from homeserver.observability.exposition import Exposition
from tests.architecture.source import PACKAGES, modules
from tests.support.server import ServerTestCase


class MetricsTests(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "listeners": [{"port": 0, "bind": "127.0.0.1", "resources": ["client", "metrics"]}]
    }

    async def test_what_happens_can_be_counted(self) -> None:
        """An operator sees in one place how much the server does, and what waits."""
        alice = await self.register("alice")
        room_id = await alice.create_room()
        await alice.say(room_id, "hello")

        text = Exposition(self.server.metrics).text().decode()

        figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        self.assertGreaterEqual(float(figures["homeserver_events_total"]), 7)
        self.assertEqual(float(figures["homeserver_rooms_loaded"]), 1)
        self.assertEqual(float(figures["homeserver_database_queries_waiting"]), 0)
        for reader in self.server.parts.readers:
            behind = f'homeserver_reader_behind_seconds{{reader="{reader.name}"}}'
            self.assertLess(float(figures[behind]), 60)
        self.assertGreater(float(figures['homeserver_cache_hits_total{cache="events"}']), 0)

    async def test_every_periodic_task_is_shown(self) -> None:
        """An operator sees when each clean-up ran last, and whether it fails."""
        _, tasks = caches_and_tasks_of(self.server)

        text = Exposition(self.server.metrics).text().decode()

        self.assertIn("the deletion of old media", {task.name for task in tasks})
        for task in tasks:
            self.assertIn(f'homeserver_periodic_task_failures{{task="{task.name}"}} 0.0', text)
        due = (
            'homeserver_periodic_task_next_run_timestamp_seconds{task="the deletion of old media"}'
        )
        self.assertIn(due, text)

    async def test_every_cache_is_shown_under_a_name_of_its_own(self) -> None:
        """A cache that is too small is found among the metrics, whichever it is."""
        caches, _ = caches_and_tasks_of(self.server)
        names = sorted(cache.name for cache in caches)

        text = Exposition(self.server.metrics).text().decode()

        self.assertEqual(names, sorted(cache_names()))
        for name in names:
            self.assertIn(f'homeserver_cache_capacity{{cache="{name}"}}', text)


def cache_names() -> Iterator[str]:
    """The names of all caches in the source; one that is not to be shown has none."""
    for module in modules(*PACKAGES):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "LruCache":
                yield from filter(None, [ast.literal_eval(node.args[0])])
