"""Interest in rooms: what is known of them, without a database."""

import re
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from appservices.transactions.alias_interest import AliasInterest
from appservices.transactions.room_interest import RoomInterest
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.appservices.namespaces import Namespace, NamespaceList
from homeserver.rooms.room.changes import RoomAliasChanged
from homeserver.storage.rooms.room_aliases import AliasRow


def appservice(appservice_id: str, **namespaces: str) -> Appservice:
    lists = {
        kind: NamespaceList((Namespace(re.compile(regex), exclusive=True),))
        for kind, regex in namespaces.items()
    }
    return Appservice(
        appservice_id,
        "http://127.0.0.1",
        f"as {appservice_id}",
        f"hs {appservice_id}",
        f"@{appservice_id}:example.org",
        "example.org",
        **lists,
    )


IRC = appservice("irc", users="@irc_.*", aliases="#irc_.*")
PUPPETS = appservice("puppets", users="@.*")
ROOM: Any = SimpleNamespace(
    room_nid=1,
    room_id="!room",
    members={
        "@irc_bob:example.org": "join",
        "@alice:example.org": "join",
        "@irc_carol:elsewhere.org": "join",
    },
)


class RoomInterestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.interest = RoomInterest(Appservices([IRC, PUPPETS]), SimpleNamespace(), lambda _: ())

    def test_only_receivers_are_followed(self) -> None:
        """A token for all users of the server costs no memory in each of their rooms."""
        self.interest.set_receivers(["irc"])

        self.assertEqual([*self.interest.of_room(ROOM)], [IRC])

        self.interest.set_receivers(["irc", "puppets"])
        self.assertEqual({*self.interest.of_room(ROOM)}, {IRC, PUPPETS})

    def test_nothing_is_computed_for_a_room_that_is_only_asked_about(self) -> None:
        """A user's presence concerns thousands of rooms."""
        self.interest.set_receivers(["irc"])

        self.assertIsNone(self.interest.known(1))

        self.interest.of_room(ROOM)
        self.assertEqual([*(self.interest.known(1) or ())], [IRC])


class SlowDatabase:
    """A database whose pages arrive when the test says so."""

    def __init__(self) -> None:
        self.pages: list[Deferred[list[AliasRow]]] = []

    def run(self, *_: Any) -> Deferred[list[AliasRow]]:
        self.pages.append(Deferred())
        return self.pages[-1]


class AliasInterestTests(SynchronousTestCase):
    def test_a_reload_forgets_nothing_meanwhile(self) -> None:
        """Events that are sent while aliases are read are bridged as well."""
        db = SlowDatabase()
        aliases = AliasInterest(db, Appservices([IRC]))  # type: ignore[arg-type]
        aliases.apply([RoomAliasChanged(1, "#irc_a:example.org", 1)])
        aliases.apply([RoomAliasChanged(2, "#irc_b:example.org", 2)])

        loading = Deferred.fromCoroutine(aliases.load())
        self.assertEqual({*aliases.of_room(1)}, {IRC})
        db.pages[0].callback([AliasRow("#irc_a:example.org", 1, 0), AliasRow("#irc_b", 2, 0)])
        # Both were read before they changed.
        aliases.apply([RoomAliasChanged(3, "#irc_a:example.org", None)])
        aliases.apply([RoomAliasChanged(4, "#irc_c:example.org", 3)])
        db.pages[1].callback([])
        self.successResultOf(loading)

        found = {room: {*aliases.of_room(room)} for room in (1, 2, 3)}
        self.assertEqual(found, {1: set(), 2: {IRC}, 3: {IRC}})
