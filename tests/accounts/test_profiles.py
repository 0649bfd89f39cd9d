"""Profiles: fields, their limits, and what follows from a change."""

from typing import Any

from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.user_data.profiles import Profile, ProfileChanged, check_may_change
from homeserver.protocol.errors import (
    Forbidden,
    GuestAccessForbidden,
    InvalidParam,
    KeyTooLarge,
    NotFound,
    UserSuspended,
)
from tests.accounts.support import ALICE, BOB, AccountsTestCase

CAROL = "@carol:elsewhere.example"


class ProfilesTests(AccountsTestCase):
    async def setUp(self) -> None:
        self.told: list[tuple[str, str]] = []
        await super().setUp()
        await self.user()

    async def profile_changed(self, user_id: str, field: str) -> None:
        self.told.append((user_id, field))

    async def find_remote_profile(self, user_id: str, field: str | None) -> Profile:
        if user_id != CAROL:
            raise NotFound("Nobody there has that name")
        return {"displayname": b'"Carol"', "m.tz": b'"UTC"'}

    async def test_a_field_that_was_set_is_shown(self) -> None:
        """All users see the name that a user chose."""
        await self.profiles.set_field(ALICE, "displayname", "Alice")
        await self.profiles.set_field(ALICE, "org.example.pets", {"cats": 2})

        profile = await self.profiles.get(ALICE, None, CAROL)

        self.assertEqual(profile, {"displayname": b'"Alice"', "org.example.pets": b'{"cats":2}'})

    async def test_profiles_outlive_a_restart(self) -> None:
        """A name is set once."""
        await self.profiles.set_field(ALICE, "displayname", "Alice")
        await self.profiles.set_field(ALICE, "m.tz", "Europe/London")
        await self.profiles.remove_field(ALICE, "m.tz")
        self.build()

        self.assertEqual(await self.profiles.get(ALICE, None, CAROL), {"displayname": b'"Alice"'})

    async def test_a_change_is_published_and_calls_the_hooks(self) -> None:
        """Member events and syncs follow from here."""
        entries: list[Any] = []
        self.log.subscribe(entries.extend)

        await self.profiles.set_field(ALICE, "displayname", "Alice")
        await self.profiles.set_field(ALICE, "displayname", "Alice")
        await self.profiles.remove_field(ALICE, "avatar_url")

        self.assertEqual(
            entries, [ProfileChanged(self.log.position, ALICE, "displayname", b'"Alice"')]
        )
        self.assertEqual(self.told, [(ALICE, "displayname")])

    async def test_member_events_get_name_and_picture_if_there_are_any(self) -> None:
        """An empty name is no name."""
        await self.profiles.set_field(ALICE, "displayname", "Alice")
        await self.profiles.set_field(ALICE, "avatar_url", "")

        self.assertEqual(await self.local_profiles.member_fields(ALICE), {"displayname": "Alice"})

    async def test_null_is_a_value_of_its_own_fields_only(self) -> None:
        """A stored null is kept; but a name is a string."""
        await self.profiles.set_field(ALICE, "org.example.nothing", None)

        self.assertEqual(
            (await self.profiles.get(ALICE, None, CAROL))["org.example.nothing"], b"null"
        )
        await self.refused(self.profiles.set_field(ALICE, "displayname", None), "M_BAD_JSON", 400)

    async def test_a_profile_has_a_limit(self) -> None:
        """A profile is sent to many, so it cannot be a file store."""
        await self.profiles.set_field(ALICE, "org.example.a", "x" * 40_000)

        await self.refused(
            self.profiles.set_field(ALICE, "org.example.b", "x" * 30_000),
            "M_PROFILE_TOO_LARGE",
            400,
        )
        await self.profiles.set_field(ALICE, "org.example.a", "x" * 65_000)
        await self.refused(
            self.profiles.set_field(ALICE, "displayname", "x" * 2_049), "M_INVALID_PARAM", 400
        )

    async def test_unknown_users_have_no_profile(self) -> None:
        """A mistyped name has no profile."""
        await self.refused(self.profiles.get(BOB, None, CAROL), "M_NOT_FOUND", 404)
        await self.refused(self.profiles.get("bob", None, CAROL), "M_INVALID_PARAM", 400)

    async def test_remote_profiles_are_requested_from_their_server(self) -> None:
        """A user sees the profiles of remote users like those of local ones."""
        await self.refused(
            self.profiles.get("@dave:elsewhere.example", None, CAROL), "M_NOT_FOUND", 404
        )

        self.assertEqual(await self.profiles.get(CAROL, "m.tz", ALICE), {"m.tz": b'"UTC"'})

    async def test_a_change_while_the_profile_is_read_is_not_lost(self) -> None:
        """Two devices at once: all users see the second value."""
        reading = self.started(self.profiles.get(ALICE, None, CAROL))
        writing = self.started(self.profiles.set_field(ALICE, "displayname", "Alice"))
        await reading
        await writing

        self.assertEqual(await self.profiles.get(ALICE, None, CAROL), {"displayname": b'"Alice"'})

    def test_who_may_change_what(self) -> None:
        """One's own profile; guests their name only; suspended users nothing."""
        guest = Requester(ALICE, "D", is_guest=True)
        check_may_change(Requester(ALICE, "D"), ALICE, "avatar_url")
        check_may_change(guest, ALICE, "displayname")

        for refusal, caller, field in (
            (Forbidden, Requester(BOB, "D"), "displayname"),
            (GuestAccessForbidden, guest, "avatar_url"),
            (UserSuspended, Requester(ALICE, "D", is_suspended=True), "displayname"),
            (InvalidParam, Requester(ALICE, "D"), "No Field"),
            (KeyTooLarge, Requester(ALICE, "D"), "a" * 256),
        ):
            with self.assertRaises(refusal):
                check_may_change(caller, ALICE, field)
