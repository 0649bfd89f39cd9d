"""What this server refuses to make, because other servers would refuse to take it."""

from typing import Any, cast

import msgspec
import pytest

from homeserver.client_api.stream_methods import (
    Call,
    EphemeralMethods,
    EventMethods,
    Methods,
    SocketMethods,
    UserMethods,
)
from homeserver.protocol.errors import Forbidden, MatrixError
from homeserver.rooms.creation import StateDraft
from homeserver.rooms.drafts import Draft, member_draft
from homeserver.web.rate_limits import RateLimits
from tests.rooms.support import ALICE, BOB, RoomsTestCase

ELSEWHERE = "@moderator:elsewhere.example"
VIA = "join_authorised_via_users_server"


class OwnEventTests(RoomsTestCase):
    async def restricted_room(self, version: str = "11", **request: Any) -> str:
        """A room for the members of another one, in which nobody is."""
        allow = [{"type": "m.room_membership", "room_id": "!other:example.org"}]
        rule = {"join_rule": "restricted", "allow": allow}
        state = [StateDraft("m.room.join_rules", rule)]
        return await self.create_room(version=version, initial_state=state, **request)

    async def send(self, room_id: str, draft: Draft) -> None:
        async with self.rooms.writing(room_id) as writer:
            await writer.send(draft)

    async def test_the_writer_takes_no_membership_as_any_other_state(self) -> None:
        """An endpoint that forgets where memberships are changed changes none."""
        room_id = await self.create_room()

        for sender, target, membership in (
            (ALICE, ALICE, "join"),
            (BOB, BOB, "join"),
            (ALICE, BOB, "invite"),
            (ALICE, BOB, "ban"),
            (ALICE, ALICE, "leave"),
        ):
            content = {"membership": membership, "displayname": "new"}
            draft = Draft("m.room.member", sender.user_id, content, state_key=target.user_id)
            with pytest.raises(Forbidden):
                await self.send(room_id, draft)

        assert dict((await self.rooms.get(room_id)).members) == {ALICE.user_id: "join"}

    async def test_what_only_a_server_may_say_comes_from_the_server(self) -> None:
        """Whoever writes the content, these fields are given by who has checked them."""
        content = {"membership": "join", VIA: ELSEWHERE, "third_party_invite": {}, "reason": "x"}

        plain = member_draft(BOB.user_id, BOB.user_id, content)
        vouched = member_draft(BOB.user_id, BOB.user_id, content, authoriser=ALICE.user_id)

        assert plain.content == {"membership": "join", "reason": "x"}
        assert vouched.content == {**plain.content, VIA: ALICE.user_id}

    async def test_no_event_is_made_that_another_server_would_have_to_sign(self) -> None:
        """Everything that cites it would be refused elsewhere: its sender would be mute."""
        for version in ("8", "11", "12"):
            room_id = await self.restricted_room(version)
            await self.memberships.invite(ALICE, room_id, BOB.user_id)
            draft = member_draft(
                BOB.user_id, BOB.user_id, {"membership": "join"}, authoriser=ELSEWHERE
            )

            with pytest.raises(Forbidden, match=r"signature of elsewhere\.example"):
                await self.send(room_id, draft)

            assert (await self.rooms.get(room_id)).membership(BOB.user_id) == "invite"

    async def test_no_event_is_made_for_a_user_of_another_server(self) -> None:
        """This server cannot sign for its users, whatever makes the event."""
        room_id = await self.create_room()
        draft = member_draft("@bob:elsewhere.example", "@bob:elsewhere.example", {})
        draft.content["membership"] = "join"

        with pytest.raises(Forbidden, match="signature"):
            await self.send(room_id, draft)

    async def test_no_method_of_the_websocket_is_another_door(self) -> None:
        """All methods that write are tried with a member event that names a moderator."""
        room_id = await self.restricted_room()
        anything = cast("Any", None)
        others = [
            *SocketMethods().methods(),
            *EphemeralMethods(anything, anything).methods(),
            *UserMethods(anything, anything).methods(),
        ]
        # None of these makes an event; a new one has to be put here, or be tried below.
        assert {method.name for method in others} == {
            *("ping", "ack", "filter", "typing", "receipt", "read_markers"),
            *("presence", "account_data"),
        }
        methods = EventMethods(self.sending).methods()
        socket = Methods(RateLimits(self.clock, {}), methods)
        content = {"membership": "join", VIA: ALICE.user_id}
        params = {
            "room_id": room_id,
            "event_type": "m.room.member",
            "state_key": BOB.user_id,
            "content": content,
            "event_id": "$none",
        }
        refused = []
        for method in methods:
            call = Call(BOB, "txn", anything)
            try:
                await socket.run(method.name, call, msgspec.json.encode(params))
            except MatrixError:
                refused.append(method.name)
        assert refused == ["send", "state", "redact"]
        assert (await self.rooms.get(room_id)).membership(BOB.user_id) is None
