"""WebSockets of ghosts, opened with the token of an application service."""

from twisted.internet.threads import deferToThread

from tests.appservices.support import AppserviceTestCase, AppserviceUser, registration
from tests.clients.plain_client import User
from tests.clients.stream import Stream, bodies_in


class WebSocketTests(AppserviceTestCase):
    registrations = (registration("irc", rate_limited=False), registration("xmpp"))
    settings = {  # noqa: RUF012  # never changed
        "rate_limits": {"message": {"per_second": 0.001, "burst": 2}}
    }

    async def test_a_ghost_sends_without_a_device(self) -> None:
        """Once for each id, over either transport, and without limits where it has none."""
        ghost = await self.ghost("_irc_bob")
        room = await ghost.create_room()

        sent = await deferToThread(self._send, ghost, room, ["1", "2", "1", "3", "4"])

        first, second, again, *_ = sent
        self.assertEqual(first["result"], again["result"])
        self.assertNotEqual(first["result"], second["result"])
        event_id = await ghost.say(room, "1", txn_id="1")
        self.assertEqual(event_id, first["result"]["event_id"])

    async def test_a_ghost_with_limits_has_them_here_too(self) -> None:
        """A socket is no way around them."""
        ghost = await self.ghost("_xmpp_bob", "xmpp")
        room = await ghost.create_room()

        sent = await deferToThread(self._send, ghost, room, ["1", "2", "3"])

        self.assertEqual(
            [each.get("error", {}).get("errcode") for each in sent],
            [None, None, "M_LIMIT_EXCEEDED"],
        )

    async def test_a_ghost_gets_its_updates(self) -> None:
        """As over /sync, with the transaction ids of its own requests."""
        ghost = await self.ghost("_irc_bob")
        room = await ghost.create_room()
        await ghost.say(room, "hello", txn_id="1")

        def read() -> object:
            with self._open(ghost) as stream:
                return stream.update()

        update = await deferToThread(read)
        self.assertEqual(bodies_in(update, room), ["hello"])

    def _send(
        self, ghost: AppserviceUser, room: str, frame_ids: list[str]
    ) -> list[dict[str, object]]:
        with self._open(ghost) as stream:
            stream.update()
            content = {"msgtype": "m.text", "body": "hello"}
            return [
                stream.call(
                    "send", each, room_id=room, event_type="m.room.message", content=content
                )
                for each in frame_ids
            ]

    def _open(self, ghost: AppserviceUser) -> Stream:
        return Stream(User(self.url, ghost.user_id, "", ghost.token or ""), user_id=ghost.user_id)
