"""Files that application services upload and download as their users."""

from typing import ClassVar

from tests.appservices.support import AppserviceTestCase, registration
from tests.media.media_client import CREATE, UPLOAD, Got, MediaTestCase, path_of
from tests.support.actors import Client


class BridgeTests(AppserviceTestCase, MediaTestCase):
    settings: ClassVar = {
        "media": {"user_quota": 1_000},
        "rate_limits": {"upload": {"per_second": 0.001, "burst": 2}},
    }
    registrations = (registration(), registration("fast", rate_limited=False))

    async def upload_as(self, ghost: Client, content: bytes) -> Got:
        """Upload a file as a user of a bridge."""
        return await self.send("POST", UPLOAD, content, by=ghost, user_id=ghost.user_id)

    async def test_a_file_is_that_of_the_ghost(self) -> None:
        """Each user of a bridge has the quota of a user, and nobody else's."""
        bob, carol = await self.ghost("_irc_bob"), await self.ghost("_irc_carol")

        first = await self.upload_as(bob, b"b" * 900)
        beyond = await self.upload_as(bob, b"b" * 200)
        other = await self.upload_as(carol, b"c" * 900)

        self.assertEqual([first.status, beyond.errcode, other.status], [200, "M_FORBIDDEN", 200])
        file = path_of(first.json["content_uri"])
        got = await self.download(file, by=carol, user_id=carol.user_id)
        self.assertEqual(got.body, b"b" * 900)

    async def test_an_address_is_that_of_the_ghost(self) -> None:
        """Ghosts of a bridge do not upload to the addresses of each other."""
        bob, carol = await self.ghost("_irc_bob"), await self.ghost("_irc_carol")
        created = await self.send("POST", CREATE, b"{}", by=bob, user_id=bob.user_id)
        target = f"{UPLOAD}/{path_of(created.json['content_uri'])}"

        by_carol = await self.send("PUT", target, b"x", by=carol, user_id=carol.user_id)
        by_bob = await self.send("PUT", target, b"x", by=bob, user_id=bob.user_id)

        self.assertEqual((by_carol.errcode, by_bob.status), ("M_FORBIDDEN", 200))

    async def test_users_of_others_store_nothing(self) -> None:
        """A bridge uploads neither as a user of this server nor as a suspended one."""
        bob, admin = await self.ghost("_irc_bob"), await self.register_admin("admin")
        path = f"/_matrix/client/v1/admin/suspend/{bob.user_id}"
        await admin.request("PUT", path, {"suspended": True})

        as_alice = await self.send(
            "POST", UPLOAD, b"x" * 100_000, by=bob, user_id=self.alice.user_id
        )
        suspended = await self.upload_as(bob, b"x")

        self.assertEqual([as_alice.errcode, suspended.errcode], ["M_FORBIDDEN", "M_USER_SUSPENDED"])
        self.assertEqual(self.stored_files(), [])

    async def test_rate_limits(self) -> None:
        """They hold for each ghost, unless the registration says otherwise."""
        limited, unlimited = await self.ghost("_irc_bob"), await self.ghost("_fast_bob", "fast")

        statuses = [
            [(await self.upload_as(ghost, b"x")).status for _ in range(4)]
            for ghost in (limited, unlimited)
        ]

        self.assertEqual(statuses, [[200, 200, 429, 429], [200] * 4])
