"""Kill -9 of the server: every acknowledged message is found, and no redacted one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-search
"""

import time
from urllib.parse import quote

import psycopg
import pytest

from homeserver.cli.running_postgres import find_running
from homeserver.protocol.search.searchable import SearchKey
from tests.clients.plain_client import CLIENT, User, register
from tests.crash.senders import Sender
from tests.search.stored_index import stored_entries
from tests.support.process import SHARED_SECRET, ServerProcess, running_server

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
CRASHES = 4
LOAD_SECONDS = 0.8
REDACT_EVERY = 5
PAUSE_SECONDS = 0.01
WAIT_SECONDS = 60.0


class RedactingSender(Sender):
    """A sender that redacts some of its messages; `redacted` has their bodies."""

    def __init__(self, user: User, room_id: str) -> None:
        super().__init__(user, room_id)
        self.redacted: set[str] = set()

    def step(self) -> None:
        super().step()
        body, event_id = list(self.acknowledged.items())[-1]
        if self._count % REDACT_EVERY == 0:
            path = f"{CLIENT}/rooms/{quote(self.room_id)}/redact/{quote(event_id)}/r{self._count}"
            self._until_redacted(path)
            self.redacted.add(body)
        time.sleep(PAUSE_SECONDS)

    def _until_redacted(self, path: str) -> None:
        while True:
            try:
                self.user.request("PUT", path, {})
            except Exception:  # the server was killed: the same request is repeated
                time.sleep(PAUSE_SECONDS)
            else:
                return


def search(user: User, term: str) -> set[str]:
    """The bodies of all results."""
    found: set[str] = set()
    body = {
        "search_categories": {
            "room_events": {
                "search_term": term,
                "order_by": "recent",
                "filter": {"limit": 100},
            }
        }
    }
    query = {}
    while True:
        answer = user.request("POST", f"{CLIENT}/search", body, **query)
        page = answer["search_categories"]["room_events"]
        found |= {each["result"]["content"]["body"] for each in page["results"]}
        if "next_batch" not in page:
            return found
        query = {"next_batch": page["next_batch"]}


def indexed(server: ServerProcess) -> tuple[int, int]:
    """The number of messages that the index has, and of redacted ones among them."""
    dsn = find_running(server.directory / "data/postgres")
    assert dsn is not None
    events = [entry.event for entry in stored_entries(dsn) if entry.key == SearchKey.BODY]
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM events WHERE event = ANY(%s) AND redacted_by IS NOT NULL",
            (events,),
        ).fetchone()
    assert row is not None
    return len(events), row[0]


def test_a_killed_server_loses_nothing_of_the_index() -> None:
    """What was sent is found after the next start, and what was redacted leaves no row."""
    with running_server() as server:
        alice = register(server.url, SHARED_SECRET, "alice")
        room = alice.create_room()
        sender = RedactingSender(alice, room)
        sender.start()
        for _ in range(CRASHES):
            time.sleep(LOAD_SECONDS)
            server.kill()
            server.start()
        time.sleep(LOAD_SECONDS)
        sender.stop()
        assert sender.failure is None
        expected = set(sender.acknowledged) - sender.redacted

        deadline = time.monotonic() + WAIT_SECONDS
        while search(alice, "alice") != expected:
            assert time.monotonic() < deadline, server.last_output()
        assert not search(alice, "alice") & sender.redacted
        server.stop()  # which writes the rest of the index
        server.start()
        assert indexed(server) == (len(expected), 0)
