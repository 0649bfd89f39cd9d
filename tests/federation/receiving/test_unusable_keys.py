"""Keys that other servers send: malformed, of others, or too late.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from typing import Any

from tests.federation.receiving.device_lists_case import (
    DEVICES,
    QUERY,
    RemoteListsTestCase,
    cross_signing_key,
    device_keys,
)
from tests.support.fake_server.fake_http import (
    GARBAGE,
    Answer,
    Stall,
    always,
)


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
