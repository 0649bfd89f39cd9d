"""Device lists of remote users: fetched once, kept up to date by EDUs, fetched again after gaps.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from twisted.internet.defer import Deferred

from homeserver.encryption.remote import remote_key_queries
from tests.federation.receiving.device_lists_case import (
    DEVICES,
    QUERY,
    Late,
    RemoteListsTestCase,
    cross_signing_key,
    device_keys,
)
from tests.support.fake_server.fake_http import (
    FAILURE,
    Answer,
    Received,
    always,
)
from tests.support.watcher import eventually


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
