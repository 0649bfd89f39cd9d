"""Events of one transaction: one query looks all of them up."""

from typing import Any

from homeserver.protocol.events import Event
from tests.rooms.inbound.remote_events import RemoteEvents
from tests.rooms.inbound.replica import build
from tests.rooms.support import RoomsTestCase

EVE = "@eve:other.example"


class ReceivedTogetherTests(RoomsTestCase):
    async def room(self) -> str:
        self.remote = RemoteEvents(self.rooms, self.storage)
        room_id = await self.create_room()
        await self.remote.member(room_id, EVE, "join")
        await self.say(room_id, "hello")
        return room_id

    async def messages(self, room_id: str, count: int) -> list[Event]:
        """A linear history of messages that were not received yet."""
        events = [await self.remote.make(room_id, "m.room.message", EVE, {"body": "first"})]
        room, first = await self.rooms.get(room_id), events[0]
        auth = [each.event for each in await self.remote.find(room, first.auth_event_ids)]
        version, at = room.version.identifier, first.origin_server_ts
        while len(events) < count:
            (content, after), at = ({"body": "more"}, events[-1:]), at + 1
            depth = events[-1].depth + 1
            events.append(
                build(version, room_id, first.type, EVE, content, None, after, auth, depth, at)
            )
        return events

    async def test_one_query_looks_up_all_events(self) -> None:
        """After an hour of downtime a server catches up at the speed of the checks."""
        room_id = await self.room()
        events = await self.messages(room_id, 8)
        asked: list[str] = []
        run = self.db.run

        async def counted(function: Any, *args: Any, **options: Any) -> Any:
            asked.append(function.__name__)
            return await run(function, *args, **options)

        self.db.run = counted  # type: ignore[method-assign]
        async with self.rooms.writing(room_id) as writer:
            await self.remote.receiving.look_up(writer, events)
            for event in events:
                await self.remote.receiving.receive(writer, event)
        await self.log.flush()

        assert asked == ["event_numbers"]

    async def test_missing_event_is_known_once_it_was_received(self) -> None:
        """An event that was evicted from memory is not stored a second time."""
        room_id = await self.room()
        events = await self.messages(room_id, 8)
        async with self.rooms.writing(room_id) as writer:
            await self.remote.receiving.look_up(writer, events)
            assert writer.inbound.absent == {each.event_id for each in events}
            first = [await self._number(writer, each) for each in events]
            await self.log.flush()
            for each in events:
                (stored,) = await self.remote.find(writer.room, [each.event_id])
                self.events.disown(stored)

            again = [await self._number(writer, each) for each in events]

        assert again == first

    async def test_missing_outlier_is_known_once_it_was_stored(self) -> None:
        """Auth events of a transaction are often fetched in the middle of it."""
        room_id = await self.room()
        topic = await self.remote.make(room_id, "m.room.topic", EVE, {"topic": "x"}, "")
        async with self.rooms.writing(room_id) as writer:
            await self.remote.receiving.look_up(writer, [topic])
            before = await self.remote.receiving.find_known(writer, [topic.event_id])
            await self.remote.receiving.outliers(writer, [topic])
            await self.log.flush()

            after = await self.remote.receiving.find_known(writer, [topic.event_id])

        assert before == {}
        assert list(after) == [topic.event_id]

    async def _number(self, writer: Any, event: Event) -> int:
        return (await self.remote.receiving.receive(writer, event)).stored.event_nid
