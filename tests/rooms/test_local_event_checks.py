"""Local event checks: events that this server refuses to make, as others would refuse them."""

from typing import Any, cast

import msgspec
import pytest

from homeserver.client_api.sync.stream_methods import (
    Call,
    EphemeralMethods,
    EventMethods,
    Methods,
    SocketMethods,
    UserMethods,
)
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    InvalidParam,
    InvalidRoomState,
    MatrixError,
)
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.events.event_draft import EventDraft, member_draft
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.lifecycle.first_events import StateDraft
from homeserver.rooms.lifecycle.upgrade import RoomUpgrades
from homeserver.rooms.room import event_builder, local_event_checks
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.web.rate_limits import RateLimits
from tests.rooms.support import ALICE, BOB, NoProfiles, RoomsTestCase

REMOTE_SERVER = "@moderator:remote.example"
VIA = "join_authorised_via_users_server"


class OwnEventTests(RoomsTestCase):
    async def restricted_room(self, version: str = "11", **request: Any) -> str:
        """A room for the members of another one, which has no members."""
        allow = [{"type": "m.room_membership", "room_id": "!other:example.org"}]
        rule = {"join_rule": "restricted", "allow": allow}
        state = [StateDraft("m.room.join_rules", rule)]
        return await self.create_room(version=version, initial_state=state, **request)

    async def send(self, room_id: str, draft: EventDraft) -> None:
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
            draft = EventDraft("m.room.member", sender.user_id, content, state_key=target.user_id)
            with pytest.raises(Forbidden):
                await self.send(room_id, draft)

        assert dict((await self.rooms.get(room_id)).members) == {ALICE.user_id: "join"}

    async def test_fields_that_only_a_server_may_set_come_from_the_server(self) -> None:
        """A client cannot set fields that vouch for a check; the checking server sets them."""
        content = {
            "membership": "join",
            VIA: REMOTE_SERVER,
            "third_party_invite": {},
            "reason": "x",
        }

        plain = member_draft(BOB.user_id, BOB.user_id, content)
        vouched = member_draft(BOB.user_id, BOB.user_id, content, authoriser=ALICE.user_id)

        assert plain.content == {"membership": "join", "reason": "x"}
        assert vouched.content == {**plain.content, VIA: ALICE.user_id}

    async def test_no_event_is_made_that_another_server_would_have_to_sign(self) -> None:
        """Other servers would refuse all events that cite it: its sender could send no more."""
        for version in ("8", "11", "12"):
            room_id = await self.restricted_room(version)
            await self.memberships.invite(ALICE, room_id, BOB.user_id)
            draft = member_draft(
                BOB.user_id, BOB.user_id, {"membership": "join"}, authoriser=REMOTE_SERVER
            )

            with pytest.raises(Forbidden, match=r"signature of remote\.example"):
                await self.send(room_id, draft)

            assert (await self.rooms.get(room_id)).membership(BOB.user_id) == "invite"

    async def test_no_event_is_made_for_a_user_of_another_server(self) -> None:
        """This server cannot sign for users of another server."""
        room_id = await self.create_room()
        draft = member_draft("@bob:remote.example", "@bob:remote.example", {})
        draft.content["membership"] = "join"

        with pytest.raises(Forbidden, match="signature"):
            await self.send(room_id, draft)

    async def test_a_room_does_not_replace_itself(self) -> None:
        """Clients that follow the upgrade would come back to the same room again and again."""
        room_id = await self.create_room()
        content = {"body": "Moved", "replacement_room": room_id}

        with pytest.raises(InvalidParam):
            await self.sending.set_state(ALICE, room_id, "m.room.tombstone", "", content)
        with pytest.raises(InvalidParam):
            await self.sending.send_message(ALICE, room_id, "m.room.tombstone", content, None)

        assert ("m.room.tombstone", "") not in (await self.rooms.get(room_id)).state
        moved = {**content, "replacement_room": "!other:example.org"}
        await self.sending.set_state(ALICE, room_id, "m.room.tombstone", "", moved)

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


class ServerAclTests(RoomsTestCase):
    """Server ACLs that would exclude every server from a room."""

    async def set_acl(self, room_id: str, content: dict[str, Any]) -> str:
        return await self.sending.set_state(ALICE, room_id, "m.room.server_acl", "", content)

    async def test_a_malformed_access_list_is_refused(self) -> None:
        """A missing or mistyped list excludes all servers; the client gets an error."""
        room_id = await self.create_room()

        for content in MALFORMED:
            with pytest.raises(BadJson, match=r"allow|deny"):
                await self.set_acl(room_id, content)
            with pytest.raises(BadJson, match=r"allow|deny"):
                await self.create_room(initial_state=[StateDraft("m.room.server_acl", content)])

        assert ("m.room.server_acl", "") not in (await self.rooms.get(room_id)).state
        assert await self.reading.joined_rooms(ALICE.user_id) == [room_id]

    async def test_no_server_excludes_itself(self) -> None:
        """Neither by name, nor by a pattern, nor by allowing only others."""
        room_id = await self.create_room()

        for content in KEEPING_OUT:
            with pytest.raises(Forbidden, match=r"your own server, example\.org"):
                await self.set_acl(room_id, content)
            with pytest.raises(InvalidRoomState, match="your own server"):
                await self.create_room(initial_state=[StateDraft("m.room.server_acl", content)])

        assert ("m.room.server_acl", "") not in (await self.rooms.get(room_id)).state

    async def test_an_access_list_against_other_servers_is_set(self) -> None:
        """Moderation works; an event with a meaningless state key is not checked."""
        room_id = await self.create_room()

        await self.set_acl(room_id, {"allow": ["*"], "deny": ["evil.example"]})
        await self.set_acl(room_id, {"allow": ["example.*"], "allow_ip_literals": False})
        await self.sending.set_state(ALICE, room_id, "m.room.server_acl", "x", {"allow": 1})

    async def test_the_access_list_in_force_is_not_redacted(self) -> None:
        """A redacted list excludes every server."""
        room_id = await self.create_room()
        first = await self.set_acl(room_id, {"allow": ["*"]})

        with pytest.raises(Forbidden, match="access list"):
            await self.sending.redact(ALICE, room_id, first, {}, "txn")

        await self.set_acl(room_id, {"allow": ["*"], "deny": ["evil.example"]})
        await self.sending.redact(ALICE, room_id, first, {}, "txn2")

    async def test_an_upgrade_leaves_behind_a_list_that_would_shut_the_new_room(self) -> None:
        """A room that is shut already can still be replaced by one that is not."""
        upgrades = RoomUpgrades(self.log, self.names, self.rooms, NoProfiles())
        for content in (MALFORMED[0], KEEPING_OUT[0]):
            room_id = await self.create_room()
            self.patch(event_builder, "check_draft", lambda *_: None)
            await self.set_acl(room_id, content)
            self.patch(event_builder, "check_draft", CHECK_DRAFT)

            new = await self.rooms.get(await upgrades.upgrade(ALICE, room_id, "12"))

            assert ("m.room.server_acl", "") not in new.state
            assert new.membership(ALICE.user_id) == "join"


CHECK_DRAFT = local_event_checks.check_draft
MALFORMED: list[dict[str, Any]] = [
    {},
    {"deny": ["evil.example"]},
    {"allow": None},
    {"allow": "*"},
    {"allow": ["*", 1]},
    {"allow": ["*"], "deny": "evil.example"},
    {"allow": ["*"], "deny": [None]},
]
KEEPING_OUT: list[dict[str, Any]] = [
    {"allow": []},
    {"allow": ["other.example"]},
    {"allow": ["*"], "deny": ["example.org"]},
    {"allow": ["*"], "deny": ["*"]},
    {"allow": ["*"], "deny": ["EX?MPLE.*"]},
]


class CreationChecks(RoomsTestCase):
    async def test_a_create_event_that_others_would_refuse_makes_no_room(self) -> None:
        """The creator would be alone in such a room permanently, without an error."""
        for preset in ("private_chat", "trusted_private_chat"):
            for creators, error in (
                (["nope"], InvalidParam),
                ([5], InvalidParam),
                ([BOB.user_id, None], InvalidParam),
                ({}, BadJson),
                ("@dave:x", BadJson),
                (None, BadJson),
            ):
                with pytest.raises(error):
                    await self.create_room(
                        version="12",
                        preset=preset,
                        creation_content={"additional_creators": creators},
                    )
        for content in ({"m.federate": "no"}, {"type": 1}, {"predecessor": "!old:x"}):
            with pytest.raises(BadJson):
                await self.create_room(creation_content=content)

        assert await self.reading.joined_rooms(ALICE.user_id) == []

    async def test_the_writer_checks_the_event_that_makes_its_room(self) -> None:
        """This holds for every caller that creates a room, such as an upgrade."""
        for version, content in (
            ("12", {"room_version": "12", "additional_creators": ["nope"]}),
            ("10", {"room_version": "10"}),
            ("11", {"room_version": "of tomorrow"}),
        ):
            rules = ROOM_VERSIONS[version]
            room_id = None if rules.room_id_is_create_hash else "!new:example.org"
            draft = EventDraft("m.room.create", ALICE.user_id, content, state_key="")
            create = self.origin.sign_event(rules, draft, room_id=room_id)
            names = await self.names.nids([create.room_id, ALICE.user_id, "m.room.create", ""])
            room = Room(names[create.room_id], create.room_id, rules, EMPTY)
            number, position = self.log.next_event_number(), self.log.next_position()
            first = StoredEvent(create, number, position, EMPTY, EMPTY, stored_at=position)

            with pytest.raises(Forbidden):
                self.rooms.add_new(room).append([], create=first)
            self.rooms.drop(room)

    async def test_additional_creators_of_old_rooms_are_free_text(self) -> None:
        """Before version 12 the field means nothing."""
        await self.create_room(version="11", creation_content={"additional_creators": ["nope"]})
