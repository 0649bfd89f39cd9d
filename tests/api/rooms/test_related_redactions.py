"""Redactions that include the events that relate to the redacted one."""

from typing import Any

from homeserver.rooms.sending import related_redactions
from tests.api.rooms.test_relations import child, edit, reaction
from tests.support.actors import Actor
from tests.support.server import ServerTestCase

MESSAGE = "m.room.message"


class RelatedRedactionTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice, self.bob = await self.register("alice"), await self.register("bob")
        self.room = await self.alice.create_room(public=True)
        await self.bob.join(self.room)
        self.root = await self.bob.say(self.room, "root")
        self.edit = await self.bob.send(self.room, MESSAGE, edit(self.root, "changed"))
        self.reply = await self.bob.send(self.room, MESSAGE, child(self.root, "m.thread"))
        self.hers = await self.alice.send(self.room, "m.reaction", reaction(self.root, "+"))

    async def redact(self, by: Actor, **body: Any) -> None:
        await by.put(f"/rooms/{self.room}/redact/{self.root}/once", body)

    async def redacted(self) -> set[str]:
        """The root and its children that are redacted."""
        ids = (self.root, self.edit, self.reply, self.hers)
        events = [await self.alice.event(self.room, event_id) for event_id in ids]
        return {event["event_id"] for event in events if "redacted_because" in event["unsigned"]}

    async def test_children_of_the_named_types_go_with_the_event(self) -> None:
        """No edit shows what a message had said; the rest of the thread stays."""
        await self.redact(self.bob, reason="oops", with_rel_types=["m.replace"])

        self.assertEqual(await self.redacted(), {self.root, self.edit})
        because = (await self.alice.event(self.room, self.edit))["unsigned"]["redacted_because"]
        self.assertEqual(because["content"]["reason"], "oops")
        self.assertNotIn("with_rel_types", because["content"])

    async def test_events_that_the_user_may_not_redact_stay(self) -> None:
        """The request succeeds all the same."""
        await self.redact(self.bob, **{"org.matrix.msc3912.with_relations": ["*"]})

        self.assertEqual(await self.redacted(), {self.root, self.edit, self.reply})

    async def test_a_moderator_redacts_everything(self) -> None:
        """Even where there is more than one page of it."""
        self.patch(related_redactions, "PAGE", 1)

        await self.redact(self.alice, with_rel_types=["*"])

        self.assertEqual(await self.redacted(), {self.root, self.edit, self.reply, self.hers})

    async def test_without_types_only_the_event_is_redacted(self) -> None:
        """An empty list is like none."""
        await self.redact(self.alice, with_rel_types=[])

        self.assertEqual(await self.redacted(), {self.root})

    async def test_a_repeated_request_redacts_the_rest(self) -> None:
        """A client that got no response repeats it; the event itself is redacted once."""
        await self.redact(self.alice)

        await self.redact(self.alice, with_rel_types=["m.thread"])

        self.assertEqual(await self.redacted(), {self.root, self.reply})

    async def test_too_many_types_are_refused_before_anything_is_redacted(self) -> None:
        """Each type is a query."""
        attempt = self.redact(self.alice, with_rel_types=[f"t{number}" for number in range(21)])

        await self.assert_refused("M_INVALID_PARAM", attempt, 400)
        self.assertEqual(await self.redacted(), set())
