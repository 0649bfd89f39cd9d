"""Answers of sliding sync that readers share are those that each would get alone.

Spec: MSC4186
"""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.sliding_sync.response import Form
from homeserver.sync.sliding.response_draft import Answer
from tests.support.postgres import DatabaseTestCase
from tests.sync.sliding.shared_answer_checks import (
    Client,
    accepted_body_of,
    ageless,
    assert_same,
    body_of,
)
from tests.sync.sync_server import SyncServer

ROOM: dict[str, Any] = {
    "ranges": [[0, 19]],
    "timeline_limit": 2,
    "required_state": [["m.room.name", ""], ["m.room.member", "$ME"]],
}
LAZY = {**ROOM, "required_state": [["*", "*"], ["m.room.member", "$LAZY"]]}
ALL = ("account_data", "receipts", "typing")


USUAL = body_of({"all": LAZY}, ALL)
BODIES = [
    USUAL,
    body_of({"all": ROOM}),
    body_of({"all": {**ROOM, "timeline_limit": 1}}, ("receipts",)),
    body_of({"all": {**ROOM, "timeline_limit": 0}}, ("typing",)),
    body_of({"all": {**ROOM, "ranges": [[0, 0]]}}, ALL),
    body_of({"all": LAZY, "direct": {**ROOM, "filters": {"is_dm": True}}}, ALL),
    body_of({"all": LAZY, "again": {**ROOM, "ranges": [[0, 0]]}}, ("account_data",)),
    body_of({"all": LAZY}, (*ALL, "e2ee", "to_device")),
    accepted_body_of({"all": {"timeline_limit": 2, "required_state": {"include": [{}]}}}),
]


class SharedAnswerTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        server = self.server = await SyncServer.start(self.db)
        self.sliding_sync = server.sync.sliding.sliding_sync
        self.alice = await server.user("alice")
        self.readers = [await server.user(f"user{number}") for number in range(3)]
        self.room_id = await server.create_room(self.alice)
        for reader in self.readers:
            await server.rooms.memberships.join(reader, self.room_id)
        self.clients = [
            Client(user, body, f"c{number}")
            for (number, body), user in itertools.product(
                enumerate(BODIES), (self.alice, *self.readers)
            )
        ]

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def sync(self, client: Client) -> None:
        response = await self.sliding_sync.sync(client.caller, client.request, 0)
        client.pos = response.pos

    async def settle(self) -> None:
        """Have all clients get all that there is."""
        for client in self.clients * 2:
            await self.sync(client)

    async def answers_after(
        self, change: Callable[[], Awaitable[Any]]
    ) -> dict[Client, Answer | None]:
        """The answers to a change that are shared; each is compared with that to the client alone.

        `None` stands for an answer that is not shared.
        """
        await self.say("before")  # whose sender lazily loading clients know then
        await self.settle()
        await change()
        await self.server.idle()
        return {client: await self._answer(client) for client in self.clients}

    async def _answer(self, client: Client) -> Answer | None:
        request, sliding_sync = client.request, self.sliding_sync
        reader = await self.server.engine.build_request(client.caller, connection=client.conn_id)
        connection = await sliding_sync._connections.open(reader, client.conn_id, client.pos)
        reader = connection.reader_of(reader)
        queue = await self.server.sync.change_queues.queue_of(reader.user_id)
        shared = sliding_sync._shared.find(request, reader, connection, queue)
        if shared is not None:
            assert_same(shared, await sliding_sync._responses.make(request, reader, connection))
        return shared

    async def shared_by(self, change: Callable[[], Awaitable[Any]]) -> set[str]:
        """Whose usual client gets the result that most of them get after a change."""
        answers = await self.answers_after(change)
        usual = {
            client.caller.user_id: id(answer.rooms[self.room_id])
            for client, answer in answers.items()
            if client.body is USUAL and answer is not None
        }
        found = list(usual.values())
        most = max(found, key=found.count, default=0)
        return {user_id for user_id, result in usual.items() if result == most}

    async def say(self, body: str = "hello") -> str:
        return await self.server.say(self.alice, self.room_id, body)

    def ids(self, *without: Requester) -> set[str]:
        return {reader.user_id for reader in self.readers if reader not in without}

    async def test_message(self) -> None:
        """All but the device that sent it have one and the same result."""
        phone = Client(Requester(self.alice.user_id, "PHONE"), USUAL, "phone")
        self.clients.append(phone)

        answers = await self.answers_after(self.say)

        assert {client.caller for client, answer in answers.items() if answer is None} == {
            self.alice,
            *self.readers,
        }
        usual = [answer for client, answer in answers.items() if client.body is USUAL and answer]
        own = [client for client in answers if client.caller == self.alice]
        assert not any(answers[client] for client in own)
        assert len({id(answer.rooms[self.room_id]) for answer in usual[:-1]}) == 1
        assert len(usual) == len(self.readers) + 1
        # Their own messages do not notify a user, on any device.
        assert [answer.rooms[self.room_id].notification_count for answer in usual] == [2, 2, 2, 0]

    async def test_what_is_shared_by_configs(self) -> None:
        """Clients with other lists and limits share it as well, if nothing more is enabled."""
        answers = await self.answers_after(self.say)

        reader = self.readers[0]
        shared = [answers[client] is not None for client in answers if client.caller == reader]
        assert shared == [True, True, True, False, True, True, True, False, True]

    async def test_transaction_id_is_sent_to_the_sending_device_alone(self) -> None:
        """What its sender gets has it, and nothing that is shared."""
        answers = await self.answers_after(self.say)
        response = await self.sliding_sync.sync(self.alice, self.clients[0].request, 0)

        assert b'"transaction_id"' in response.rooms[self.room_id].encode(Form.DEPLOYED)
        for answer in filter(None, answers.values()):
            assert b"transaction_id" not in answer.rooms[self.room_id].encode(Form.DEPLOYED)

    async def test_several_messages(self) -> None:
        """They are as one message where they fit into the timelines."""

        async def two() -> None:
            await self.say()
            await self.say()

        assert await self.shared_by(two) == self.ids()

    async def test_more_messages_than_the_limit(self) -> None:
        """The timeline is limited, by the config of each."""

        async def three() -> None:
            for _ in range(3):
                await self.say()

        assert await self.shared_by(three) == set()

    async def test_message_that_mentions_a_reader(self) -> None:
        """The count of the mentioned reader is another one."""
        mentions = {"user_ids": [self.readers[0].user_id]}
        content = {"msgtype": "m.text", "body": "hello", "m.mentions": mentions}

        async def mention() -> None:
            await self.server.rooms.sending.send_message(
                self.alice, self.room_id, "m.room.message", content, "mention"
            )

        assert await self.shared_by(mention) == self.ids(self.readers[0])

    async def test_message_of_an_ignored_user(self) -> None:
        """Who ignores the sender has nothing of it."""
        ignoring = self.readers[0]
        data = self.server.accounts.account_data
        content = {"ignored_users": {self.alice.user_id: {}}}
        await data.set(ignoring.user_id, None, "m.ignored_user_list", content)

        assert await self.shared_by(self.say) == self.ids(ignoring)

    async def test_first_message_of_a_sender(self) -> None:
        """Clients that load members lazily need the member, each if it does not have it."""
        bob = self.readers[0]

        async def say() -> None:
            await self.server.say(bob, self.room_id, "hello")

        answers = await self.answers_after(say)
        lazy = [answer for client, answer in answers.items() if client.body is USUAL]
        others = [answer for client, answer in answers.items() if client.body is BODIES[1]]

        assert not any(lazy)
        assert [answer is None for answer in others] == [False, True, False, False]

    async def test_receipts(self) -> None:
        """A receipt of another reader, or one's own private one, is beside the message."""
        markers = self.server.sync.markers
        for kind in ("m.read", "m.read.private"):

            async def both(kind: str = kind) -> None:
                await self.say()
                event_id = await self.say("and")
                await markers.mark(self.readers[1], self.room_id, kind, event_id)

            shared = await self.shared_by(both)
            assert shared == set()

    async def test_typing(self) -> None:
        """Who types is beside the message."""
        user, typing = self.readers[1], self.server.sync.typing

        async def both() -> None:
            await typing.set(user, self.room_id, user.user_id, True, 30_000)
            await self.say()

        assert await self.shared_by(both) == set()
        await typing.set(user, self.room_id, user.user_id, False, 0)

    async def test_state(self) -> None:
        """What changes the state, or removes content, is for each client by its config."""
        event_id = await self.say()
        sending = self.server.rooms.sending

        async def rename() -> None:
            await sending.set_state(self.alice, self.room_id, "m.room.name", "", {"name": "Tea"})

        async def redact() -> None:
            await sending.redact(self.alice, self.room_id, event_id, {}, "redaction")

        for change in (rename, redact):
            assert not any((await self.answers_after(change)).values())

    async def test_membership(self) -> None:
        """A message of the time before a reader joined is not for them; nor one after they left."""
        joining, leaving = self.readers[0], self.readers[1]
        memberships = self.server.rooms.memberships
        await memberships.leave(joining, self.room_id)

        async def come_and_go() -> None:
            await self.say()
            await memberships.join(joining, self.room_id)
            await memberships.leave(leaving, self.room_id)
            await self.say("later")

        assert await self.shared_by(come_and_go) == set()

    async def test_room_that_the_user_has_left(self) -> None:
        """Who forgets a room that they left is not sent what was said there since."""
        leaving = self.readers[0]
        memberships = self.server.rooms.memberships
        await self.settle()
        await memberships.leave(leaving, self.room_id)

        async def forget() -> None:
            await self.say("secret")
            await memberships.forget(leaving, self.room_id)

        answers = await self.answers_after(forget)

        assert not any(answers[client] for client in answers if client.caller == leaving)

    async def test_client_that_asks_for_something_else(self) -> None:
        """It gets what it did not ask for before, and no more of what it does not want now."""
        reader = self.readers[0]
        more = body_of({"all": {**LAZY, "timeline_limit": 5}}, ALL)
        fewer = [body_of({"all": LAZY}, without) for without in (ALL[:2], ALL[1:], ALL[::2])]
        changing = Client(reader, USUAL, "changing")
        settled = [Client(reader, USUAL, f"settled{number}") for number in range(len(fewer))]
        self.clients = [changing, *settled]

        async def ask() -> None:
            for client, body in zip(settled, fewer, strict=True):
                client.body = body
                await self.sync(client)
            await self.say()
            changing.body = more

        answers = await self.answers_after(ask)

        assert answers[changing] is None
        assert [answers[client] is None for client in settled] == [True, False, True]

    async def test_account_data(self) -> None:
        """Who has new data has it together with the message."""
        tagged = self.readers[0]

        async def both() -> None:
            data = self.server.accounts.account_data
            await data.set(tagged.user_id, self.room_id, "m.tag", {"tags": {}})
            await self.say()

        assert await self.shared_by(both) == self.ids(tagged)

    async def test_another_room_as_well(self) -> None:
        """Who has news of two rooms has both in one answer."""
        other = await self.server.create_room(self.readers[0])

        async def both() -> None:
            await self.say()
            await self.server.say(self.readers[0], other, "note")

        assert await self.shared_by(both) == self.ids(self.readers[0])

    async def test_room_that_moves_in_a_list(self) -> None:
        """A room that comes to the front of a list whose range has one is sent as a whole."""
        reader = self.readers[0]
        other = await self.server.create_room(reader)

        async def nothing() -> None:
            await self.server.say(reader, other, "note")
            await self.settle()

        await self.answers_after(nothing)
        await self.say()
        await self.server.idle()
        narrow = [client for client in self.clients if client.body is BODIES[4]]

        assert [await self._answer(client) is not None for client in narrow] == [
            False,
            False,
            True,
            True,
        ]

    async def test_room_that_is_not_the_first_of_a_list(self) -> None:
        """The order of a list follows, so that the next room that moves gets its right place."""
        reader = self.readers[0]
        others = [await self.server.create_room(self.alice) for _ in range(2)]
        for other in others:
            await self.server.rooms.memberships.join(reader, other)
        self.clients = [Client(reader, body_of({"all": {**ROOM, "ranges": [[0, 1]]}}), "two")]
        await self.settle()

        for room_id, is_first in ((others[0], False), (others[0], True), (others[1], False)):
            await self.server.say(self.alice, room_id, "hello")
            await self.server.idle()
            assert (await self._answer(self.clients[0]) is not None) == is_first
            await self.settle()

    async def test_lost_response(self) -> None:
        """A client that repeats its request gets the same again, and goes on from there."""
        client = self.clients[1]
        assert client.caller == self.readers[0]
        await self.answers_after(self.say)
        first = await self.sliding_sync.sync(client.caller, client.request, 0)
        again = await self.sliding_sync.sync(client.caller, client.request, 0)
        client.pos = again.pos
        last = await self.sliding_sync.sync(client.caller, client.request, 0)

        assert first.rooms.keys() == {self.room_id}
        assert ageless(again.rooms) == ageless(first.rooms)
        assert last.pos == again.pos
        assert not last.rooms

    async def test_shared_answers_survive_a_restart(self) -> None:
        """The connection is saved, and goes on after what it got."""
        client = self.clients[1]
        await self.db.run(add_device, client.caller)

        async def save_and_say() -> None:
            await self.server.sync.sliding.connections.save()
            await self.say()

        await self.answers_after(save_and_say)
        await self.sync(client)
        await self.server.stop()
        self.server = await SyncServer.start(self.db)
        self.sliding_sync = self.server.sync.sliding.sliding_sync
        response = await self.sliding_sync.sync(client.caller, client.request, 0)

        assert response.pos == client.pos
        assert not response.rooms


async def add_device(db: Any, user: Requester) -> None:
    """Store a user's device: connections of others are not stored."""
    await db.execute(
        "INSERT INTO devices (user_id, device_id, created_ms) VALUES (%s, %s, 0)",
        (user.user_id, user.device_id),
    )
