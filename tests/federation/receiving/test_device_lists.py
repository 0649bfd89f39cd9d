"""Device lists of remote users: fetched once, kept up to date by EDUs, fetched again after gaps.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from homeserver.encryption.remote import remote_key_queries
from tests.support.actors import Actor
from tests.support.fake_server.fake_http import (
    FAILURE,
    GARBAGE,
    NOT_FOUND,
    Answer,
    Received,
    Stall,
    always,
)
from tests.support.organisations import FederationTestCase
from tests.support.watcher import eventually

LAZY = msgspec.json.encode({"room": {"state": {"lazy_load_members": True}}}).decode()
DEVICES, QUERY = "get_user_devices", "query_user_encryption_keys"


def device_keys(user_id: str, device_id: str, key: str = "a") -> dict[str, Any]:
    """Identity keys."""
    return {
        "user_id": user_id,
        "device_id": device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{device_id}": key},
        "signatures": {user_id: {f"ed25519:{device_id}": "signed"}},
    }


def cross_signing_key(user_id: str, usage: str, key: str = "m") -> dict[str, Any]:
    """A public cross-signing key."""
    return {"user_id": user_id, "usage": [usage], "keys": {f"ed25519:{key}": key}}


class RemoteListsTestCase(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation()
        self.alice = await self.here.register("alice")
        self.mallory = self.there.user("mallory")
        self.devices: dict[str, Any] = {"D": device_keys(self.mallory, "D")}
        self.cross_signing: dict[str, Any] = {}
        self.stream_id = 1
        self.there.answers[DEVICES] = self.list_devices
        self.there.answers[QUERY] = self.query_keys

    async def share(self) -> None:
        """Share a room with Mallory."""
        self.room_id = await self.alice.create_room(public=True)
        self.room = await self.there.join(self.here.name, self.room_id, self.mallory)
        self.since = (await self.alice.sync())["next_batch"]

    def list_devices(self, request: Received) -> Answer:
        """The devices as the other server has them."""
        user_id = request.path["user_id"]
        listed = [{"device_id": each, "keys": keys} for each, keys in self.devices.items()]
        body = {"user_id": user_id, "stream_id": self.stream_id, "devices": listed}
        return Answer(200, {**body, **self.cross_signing})

    def query_keys(self, request: Received) -> Answer:
        """The same for a query."""
        return Answer(
            200, {"device_keys": dict.fromkeys(request.body["device_keys"], self.devices)}
        )

    async def query(self, user_id: str = "", actor: Actor | None = None, **options: Any) -> Any:
        """The response to a query for all devices of a user, Mallory by default."""
        wanted = {"device_keys": {user_id or self.mallory: []}, **options}
        return await (actor or self.alice).post("/keys/query", wanted)

    async def found(self, user_id: str = "") -> Any:
        """The public keys that Alice finds by device; `None` if she finds no list at all."""
        answer = await self.query(user_id)
        devices = answer["device_keys"].get(user_id or self.mallory)
        return (
            None
            if devices is None
            else {each: next(iter(keys["keys"].values())) for each, keys in devices.items()}
        )

    def requests(self, operation: str = DEVICES) -> int:
        """The number of requests that the other server got."""
        return len([each for each in self.there.received if each.operation == operation])

    async def changed(self) -> set[str]:
        """The users whose devices changed, as Alice sees them in one sync."""
        answer = await self.alice.sync(self.since)
        self.since = answer["next_batch"]
        return {*answer.get("device_lists", {}).get("changed", [])}

    async def sees_change(self) -> None:
        """Wait until Alice has to look up Mallory's devices."""

        async def is_named() -> bool:
            return self.mallory in await self.changed()

        await eventually(is_named, "a change of the list")

    async def send_update(self, stream_id: Any, *previous: int, **members: Any) -> None:
        """Send an EDU for the device D, after the devices were changed."""
        content = {
            "user_id": self.mallory,
            "device_id": "D",
            "stream_id": stream_id,
            "prev_id": [*previous],
            "keys": self.devices.get("D"),
            **members,
        }
        await self.send_edu("m.device_list_update", content)

    async def send_edu(self, kind: str, content: Mapping[str, Any]) -> None:
        """Send an EDU."""
        await self.there.send(self.here.name, [], [{"edu_type": kind, "content": content}])

    async def restart(self) -> None:
        """Stop the server, and start it with the same data."""
        await self._pool.closeCachedConnections()
        await self.here.stop()
        await self.here.start()
        self.alice.url = self.here.url


class CachedListTests(RemoteListsTestCase):
    async def test_a_list_is_fetched_once_and_kept(self) -> None:
        """Also for users who ask at the same time, and after a restart."""
        await self.share()
        self.cross_signing = {
            "master_key": cross_signing_key(self.mallory, "master"),
            "self_signing_key": cross_signing_key(self.mallory, "self_signing", "s"),
        }
        queries = [Deferred.fromCoroutine(self.query()) for _ in range(5)]
        answers = [await each for each in queries]
        await self.restart()
        answers.append(await self.query())

        for answer in answers:
            self.assertEqual(
                answer["device_keys"],
                {self.mallory: {"D": {**self.devices["D"], "unsigned": {}}}},
            )
            self.assertEqual(
                answer["master_keys"], {self.mallory: self.cross_signing["master_key"]}
            )
            self.assertEqual(
                answer["self_signing_keys"], {self.mallory: self.cross_signing["self_signing_key"]}
            )
            self.assertEqual((answer["failures"], answer["user_signing_keys"]), ({}, {}))
        self.assertEqual((self.requests(), self.requests(QUERY)), (1, 0))

    async def test_strangers_are_looked_up_each_time(self) -> None:
        """No EDU would say that their devices changed; one request asks for all of them."""
        for _ in range(2):
            wanted = {self.there.user("a"): [], self.there.user("b"): ["D", "E"]}
            answer = await self.alice.post("/keys/query", {"device_keys": wanted})

            self.assertEqual(answer["device_keys"].keys(), wanted.keys())
        self.assertEqual((self.requests(), self.requests(QUERY)), (0, 2))

    async def test_for_many_users_one_request_asks(self) -> None:
        """The lists follow in the background, and are then answered from here."""
        self.patch(remote_key_queries, "MAX_FETCHED", 3)
        await self.share()
        crowd = [self.mallory, *(event.sender for event in self.room.crowd(5))]
        await self.there.send(self.here.name, [self.room.say(self.mallory, "hi")])
        wanted: dict[str, list[str]] = {each: [] for each in crowd}

        answer = await self.alice.post("/keys/query", {"device_keys": wanted})

        self.assertEqual(answer["device_keys"].keys(), wanted.keys())
        self.assertEqual(self.requests(QUERY), 1)

        async def are_fetched() -> bool:
            return self.requests() == len(crowd)

        await eventually(are_fetched, "the lists")
        await self.found()
        answer = await self.alice.post("/keys/query", {"device_keys": wanted})
        self.assertEqual(answer["device_keys"].keys(), wanted.keys())
        self.assertEqual((self.requests(QUERY), self.requests()), (1, len(crowd)))

    async def test_updates_are_applied_in_their_order(self) -> None:
        """A device is changed, added and deleted, without any request; clients are notified."""
        await self.share()
        await self.query()
        await self.changed()

        self.devices["D"] = device_keys(self.mallory, "D", "b")
        await self.send_update(2, 1, device_display_name="Phone")
        self.assertEqual(await self.changed(), {self.mallory})
        named = (await self.query())["device_keys"][self.mallory]["D"]["unsigned"]
        added = device_keys(self.mallory, "E", "e")
        await self.send_update(3, 2, device_id="E", keys=added)
        both = await self.found()
        await self.send_update(4, 3, deleted=True)

        self.assertEqual(named, {"device_display_name": "Phone"})
        self.assertEqual(both, {"D": "b", "E": "e"})
        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(await self.changed(), {self.mallory})
        await self.restart()
        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(self.requests(), 1)

    async def test_cross_signing_keys_are_updated(self) -> None:
        """Under both names of the EDU, each key by itself."""
        await self.share()
        await self.query()
        master = cross_signing_key(self.mallory, "master")
        signing = cross_signing_key(self.mallory, "self_signing", "s")

        user = {"user_id": self.mallory}
        await self.send_edu("m.signing_key_update", {**user, "master_key": master})
        await self.send_edu("org.matrix.signing_key_update", {**user, "self_signing_key": signing})

        answer = await self.query()
        self.assertEqual(answer["master_keys"], {self.mallory: master})
        self.assertEqual(answer["self_signing_keys"], {self.mallory: signing})
        self.assertIn(self.mallory, await self.changed())
        self.assertEqual(self.requests(), 1)

    async def test_an_update_that_came_before_changes_nothing(self) -> None:
        """A transaction may be sent twice, and an update may be older than the fetched list."""
        await self.share()
        self.stream_id = 5
        await self.query()
        await self.changed()
        self.devices = {"D": device_keys(self.mallory, "D", "old")}

        for stream_id in (3, 4, 5):
            await self.send_update(stream_id, stream_id - 1)

        self.assertEqual(await self.changed(), set())
        self.assertEqual(await self.found(), {"D": "a"})
        self.assertEqual(self.requests(), 1)


class GapTests(RemoteListsTestCase):
    async def test_a_first_update_has_the_list_fetched(self) -> None:
        """Clients may have the devices although this server has not: they are notified."""
        await self.share()
        await self.send_update(1)

        await self.there.wait_for_request(DEVICES)
        await self.sees_change()
        self.assertEqual(await self.found(), {"D": "a"})
        self.assertEqual(self.requests(), 1)

    async def test_after_a_gap_the_list_is_fetched_again(self) -> None:
        """Before anybody asks; an answer waits for it."""
        await self.share()
        await self.query()
        await self.changed()
        self.devices = {"D": device_keys(self.mallory, "D", "c")}
        self.stream_id = 3

        await self.send_update(3, 2)

        self.assertEqual(await self.found(), {"D": "c"})
        self.assertEqual(await self.changed(), {self.mallory})
        self.assertEqual(self.requests(), 2)

    async def test_a_burst_costs_one_request(self) -> None:
        """Also if the list is fetched before the last update of it has come."""
        await self.share()
        await self.query()
        self.devices = {"D": device_keys(self.mallory, "D", "z")}
        self.stream_id = 40
        content = {"user_id": self.mallory, "device_id": "D", "keys": self.devices["D"]}
        edus = [
            {
                "edu_type": "m.device_list_update",
                "content": {**content, "stream_id": each, "prev_id": [each - 1]},
            }
            for each in range(10, 41)
        ]

        await self.there.send(self.here.name, [], edus)

        self.assertEqual(await self.found(), {"D": "z"})
        self.assertEqual(self.requests(), 2)

    async def test_unreadable_updates_are_gaps(self) -> None:
        """Something changed, whatever it was."""
        await self.share()
        for number, members in enumerate(
            (
                {"stream_id": "1"},
                {"stream_id": 1 << 60},
                {"prev_id": "1"},
                {"device_id": "x" * 300},
                {"keys": device_keys(self.there.user("other"), "D")},
                {"keys": device_keys(self.mallory, "E")},
                {"keys": {"keys": 1}},
                {"keys": {"x": "x" * 70_000}},
            )
        ):
            await self.query()
            self.devices = {"D": device_keys(self.mallory, "D", str(number))}
            await self.send_update(**{"stream_id": 2, **members})

            self.assertEqual(await self.found(), {"D": str(number)}, members)

    async def test_a_stale_list_is_not_shown_as_current(self) -> None:
        """If the server fails, it is in `failures`, and a removed device is not shown again."""
        await self.share()
        await self.query()
        self.there.answers[DEVICES] = always(FAILURE)
        await self.send_update(3, 2)

        answer = await self.query()
        self.assertEqual(answer["device_keys"], {})
        self.assertEqual(answer["failures"].keys(), {self.there.name})
        self.assertEqual(answer["failures"][self.there.name]["status"], 503)

        # It backs off, and comes back.
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        self.there.answers[DEVICES] = self.list_devices
        self.since = (await self.alice.sync())["next_batch"]
        await self.there.send(self.here.name, [self.room.say(self.mallory, "back")])
        await self.sees_change()
        self.assertEqual(await self.found(), {"E": "e"})

    async def test_a_stale_list_is_fetched_after_a_restart(self) -> None:
        """Without anybody asking."""
        await self.share()
        await self.query()
        self.there.answers[DEVICES] = always(Answer(400, {"errcode": "M_UNKNOWN"}))
        await self.send_update(3, 2)
        await self._pool.closeCachedConnections()
        await self.here.stop()
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        self.there.answers[DEVICES] = self.list_devices
        before = self.requests()
        await self.here.start()
        self.alice.url = self.here.url

        async def is_asked() -> bool:
            return self.requests() > before

        await eventually(is_asked, "a request")
        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(self.requests(), before + 1)

    async def test_updates_during_a_request_are_not_undone(self) -> None:
        """The response may be older than they are: it is asked for again."""
        await self.share()
        old = self.list_devices(Received(DEVICES, {"user_id": self.mallory}))
        self.there.answers[DEVICES] = always(Late(old, 1.0))
        waiting = Deferred.fromCoroutine(self.found())
        await self.there.wait_for_request(DEVICES)
        self.devices = {"D": device_keys(self.mallory, "D", "new")}
        self.stream_id = 2
        self.there.answers[DEVICES] = self.list_devices

        await self.send_update(2, 1)

        self.assertEqual(await waiting, {"D": "new"})
        self.assertEqual(await self.found(), {"D": "new"})
        self.assertEqual(self.requests(), 2)

    async def test_others_cannot_change_a_list(self) -> None:
        """Neither another server, nor for a user who shares no room."""
        await self.share()
        await self.query()
        await self.changed()
        evil = await self.fake()
        content = {"user_id": self.mallory, "device_id": "D", "stream_id": 2, "prev_id": [1]}
        keys = {"user_id": self.mallory, "master_key": cross_signing_key(self.mallory, "master")}
        stranger = {**content, "user_id": self.there.user("stranger")}
        for kind, each in (
            ("m.device_list_update", {**content, "deleted": True}),
            ("m.signing_key_update", keys),
        ):
            await evil.send(self.here.name, [], [{"edu_type": kind, "content": each}])
        await self.send_edu("m.device_list_update", stranger)
        await self.send_edu("m.device_list_update", {**content, "user_id": 1})

        self.assertEqual(await self.found(), {"D": "a"})
        self.assertEqual(await self.changed(), set())
        self.assertEqual(self.requests(), 1)


class PartialStateTests(RemoteListsTestCase):
    async def join_partially(self) -> None:
        """Alice joins a large room of the other server, whose members come later."""
        self.there.omits_members = True
        for operation in ("get_room_state_ids", "get_room_state"):
            self.there.answers[operation] = always(NOT_FOUND)
        self.room = self.there.create_room()
        await self.alice.join(self.room.room_id, via=[self.there.name])
        said = self.room.say(self.mallory, "hello")
        await self.there.send(self.here.name, [said])
        self.since = (await self.alice.sync(filter=LAZY))["next_batch"]

    async def test_a_list_is_not_kept_before_the_members_are_known(self) -> None:
        """The user may have left; updates are passed on to clients all the same."""
        await self.join_partially()
        first = await self.found()
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        await self.send_update(2, 1)

        self.assertEqual((first, await self.found()), ({"D": "a"}, {"E": "e"}))
        self.assertEqual((self.requests(), self.requests(QUERY)), (0, 2))
        changed = (await self.alice.sync(self.since, filter=LAZY))["device_lists"]["changed"]
        self.assertIn(self.mallory, changed)

        for operation in ("get_room_state_ids", "get_room_state"):
            del self.there.answers[operation]
        await self.alice.get(f"/rooms/{quote(self.room.room_id)}/members")
        for _ in range(2):
            self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual((self.requests(), self.requests(QUERY)), (1, 2))


class UnsharedTests(RemoteListsTestCase):
    async def become_unshared_and_rejoin(self, *, restart: bool = False) -> None:
        """Alice leaves the room, and joins it again after Mallory's devices changed."""
        await self.alice.leave(self.room_id)
        await self.there.wait_for_request(
            "send_transaction", lambda each: "leave" in str(each.body)
        )
        if restart:
            await self.restart()
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        await self.alice.join(self.room_id, via=[self.there.name])

    async def test_after_a_rejoin_the_list_is_fetched_again(self) -> None:
        """No update came in between."""
        await self.share()
        await self.query()
        await self.become_unshared_and_rejoin()

        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(self.requests(), 2)

    async def test_a_remote_user_who_left_is_not_followed(self) -> None:
        """Their list is deleted, and an update of it is ignored."""
        await self.share()
        await self.query()
        await self.there.send(self.here.name, [self.room.member(self.mallory, "leave")])
        await self.changed()
        await self.send_update(2, 1)

        self.assertEqual(await self.changed(), set())
        await self.there.send(self.here.name, [self.room.member(self.mallory, "join")])
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        self.assertEqual(await self.found(), {"E": "e"})
        self.assertEqual(self.requests(), 2)

    async def test_another_shared_room_keeps_the_list(self) -> None:
        """Updates come as before."""
        await self.share()
        other = await self.alice.create_room(public=True)
        await self.there.join(self.here.name, other, self.mallory)
        await self.query()

        await self.there.send(self.here.name, [self.room.member(self.mallory, "leave")])
        await self.alice.leave(self.room_id)

        self.assertEqual(await self.found(), {"D": "a"})
        self.assertEqual(self.requests(), 1)

    async def test_another_local_user_keeps_the_list(self) -> None:
        """The last one who leaves ends it."""
        await self.share()
        await self.query()
        bob = await self.here.register("bob")
        await bob.join(self.room_id)

        await self.alice.leave(self.room_id)
        self.assertEqual((await self.query(actor=bob))["failures"], {})
        self.assertEqual(self.requests(), 1)

    async def test_a_rejoin_in_the_same_transaction_does_not_hide_the_leave(self) -> None:
        """Both are handled when the user is a member again."""
        await self.share()
        await self.query()
        leave, join = (self.room.member(self.mallory, each) for each in ("leave", "join"))
        await self.there.send(self.here.name, [leave, join])
        self.devices = {"E": device_keys(self.mallory, "E", "e")}

        async def is_new() -> bool:
            return bool(await self.found() == {"E": "e"})

        await eventually(is_new, "the new list")

    async def test_a_leave_during_a_request_makes_its_list_stale(self) -> None:
        """The response may be from before the leave, and the updates since were not sent."""
        await self.share()
        old = self.list_devices(Received(DEVICES, {"user_id": self.mallory}))
        self.there.answers[DEVICES] = always(Late(old, 1.0))
        waiting = Deferred.fromCoroutine(self.found())
        await self.there.wait_for_request(DEVICES)
        leave, join = (self.room.member(self.mallory, each) for each in ("leave", "join"))
        await self.there.send(self.here.name, [leave, join])
        self.devices = {"E": device_keys(self.mallory, "E", "e")}
        self.there.answers[DEVICES] = self.list_devices

        self.assertEqual(await waiting, {"D": "a"})
        self.assertEqual(await self.found(), {"E": "e"})

    async def test_a_rejoin_at_once_does_not_hide_the_leave(self) -> None:
        """Both are read from the database after a start, as after a crash right after the leave."""
        await self.share()
        await self.query()
        reader = next(
            each for each in self.here.server._parts.readers if each.name == "remote_device_lists"
        )
        await reader.stop()
        leave, join = (self.room.member(self.mallory, each) for each in ("leave", "join"))
        await self.there.send(self.here.name, [leave, join])
        await self.restart()
        self.devices = {"E": device_keys(self.mallory, "E", "e")}

        async def is_new() -> bool:
            return bool(await self.found() == {"E": "e"})

        await eventually(is_new, "the new list")


class Late(Answer):
    """A response that takes its time."""

    def __init__(self, answer: Answer, seconds: float) -> None:
        super().__init__(answer.status, answer.body)
        self._seconds = seconds

    def write(self, request: Any) -> None:
        deferLater(reactor, self._seconds, super().write, request)


class UnusableAnswerTests(RemoteListsTestCase):
    async def test_what_does_not_fit_is_dropped_and_the_rest_is_used(self) -> None:
        """Of devices, names and cross-signing keys."""
        await self.share()
        good = {"device_id": "D", "keys": device_keys(self.mallory, "D")}
        other = self.there.user("other")
        listed: list[Any] = [
            good,
            1,
            {"keys": {}},
            {"device_id": "E", "keys": device_keys(other, "E")},
            {"device_id": "F", "keys": device_keys(self.mallory, "X")},
            {"device_id": "G", "keys": 1},
            {"device_id": "H\0", "keys": {}},
            {"device_id": "I", "keys": {"x": "x" * 70_000}},
            {"device_id": "J" * 300, "keys": {}},
            {"device_id": "K", "keys": {"keys": {}}, "device_display_name": "x" * 2_000},
        ]
        body = {
            "user_id": self.mallory,
            "stream_id": 1,
            "devices": listed,
            "master_key": cross_signing_key(other, "master"),
            "self_signing_key": cross_signing_key(self.mallory, "master"),
        }
        self.there.answers[DEVICES] = always(Answer(200, body))

        answer = await self.query()

        self.assertEqual(
            answer["device_keys"],
            {
                self.mallory: {
                    "D": {**good["keys"], "unsigned": {}},
                    "K": {"keys": {}, "unsigned": {}},
                }
            },
        )
        self.assertEqual((answer["master_keys"], answer["self_signing_keys"]), ({}, {}))
        self.assertEqual(answer["failures"], {})

    async def test_an_unusable_list_is_a_failure(self) -> None:
        """That of another user, or of no shape at all."""
        await self.share()
        body = {"user_id": self.there.user("other"), "stream_id": 1, "devices": []}
        for answer in (
            GARBAGE,
            Answer(200, body),
            Answer(200, {**body, "user_id": self.mallory, "stream_id": -1}),
            Answer(200, {**body, "user_id": self.mallory, "devices": {}}),
            Answer(200, []),
            Answer(404, {"errcode": "M_NOT_FOUND"}),
        ):
            self.there.answers[DEVICES] = always(answer)
            self.here.server._parts.federation.destinations.succeeded(self.there.name)

            response = await self.query()

            self.assertEqual(response["device_keys"], {}, answer.body)
            self.assertEqual(response["failures"].keys(), {self.there.name}, answer.body)

    async def test_an_answer_has_only_what_was_asked_for(self) -> None:
        """Of the users of that server."""
        wanted = self.there.user("wanted")
        keys = dict.fromkeys((self.alice.user_id, self.mallory), self.devices)
        mine = {"D": device_keys(wanted, "D"), "E": device_keys(self.mallory, "E")}
        body = {
            "device_keys": {**keys, wanted: mine},
            "master_keys": {
                wanted: cross_signing_key(wanted, "master"),
                self.alice.user_id: cross_signing_key(self.alice.user_id, "master"),
            },
            "user_signing_keys": {wanted: cross_signing_key(wanted, "user_signing")},
        }
        self.there.answers[QUERY] = always(Answer(200, body))

        answer = await self.query(wanted)

        self.assertEqual(answer["device_keys"], {wanted: {"D": {**mine["D"], "unsigned": {}}}})
        self.assertEqual(answer["master_keys"].keys(), {wanted})
        self.assertEqual(answer["user_signing_keys"], {})

    async def test_a_slow_server_does_not_delay_the_answer(self) -> None:
        """What the others gave is in it; the slow server is not taken to be unreachable."""
        await self.share()
        quick = await self.fake()
        quick.answers[QUERY] = self.query_keys
        self.there.answers[DEVICES] = always(Stall())
        wanted = {self.mallory: [], quick.user("b"): [], self.alice.user_id: []}

        answer = await self.alice.post("/keys/query", {"device_keys": wanted, "timeout": 300})

        self.assertEqual(answer["device_keys"].keys(), wanted.keys() - {self.mallory})
        self.assertEqual(answer["failures"].keys(), {self.there.name})
        self.assertEqual(answer["failures"][self.there.name]["status"], 503)
        health = self.here.server._parts.federation.destinations.health_of(self.there.name)
        self.assertEqual(health.failures, 0)

    async def test_invalid_user_ids_are_left_out(self) -> None:
        """No request is made for them."""
        wanted = {"@x": [], "x": [], "@a:b c": [], f"@{'x' * 300}:{self.there.name}": []}

        answer = await self.alice.post("/keys/query", {"device_keys": wanted})

        self.assertEqual((answer["device_keys"], answer["failures"]), ({}, {}))
