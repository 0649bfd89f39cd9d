"""Metrics of a running server."""

from typing import Any, ClassVar

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

        text = self.server.metrics.exposition().decode()

        figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        self.assertGreaterEqual(float(figures["homeserver_events_total"]), 7)
        self.assertEqual(float(figures["homeserver_rooms_loaded"]), 1)
        self.assertEqual(float(figures["homeserver_database_queries_waiting"]), 0)
        self.assertIn('homeserver_cache_hits_total{cache="events"}', figures)
