"""The setting of tests of mails: a user with an address, another one, and a mail server."""

from typing import Any, ClassVar

import psycopg

from homeserver.push.email.digest_state import DigestState, decode_state
from tests.api.accounts.test_third_party_ids import MailTestCase
from tests.support.mail import Mail
from tests.support.reactor import pause, until

ALICE = "alice@example.com"
DELAY = 0.4  # seconds, after which an unread message is mailed
LONG_DELAY = 2.0  # in which a test can do something before the mail, also on a busy machine


def email_pusher(address: str = ALICE, **more: Any) -> dict[str, Any]:
    """A pusher by e-mail, as clients set it."""
    return {
        "kind": "email",
        "app_id": "m.email",
        "pushkey": address,
        "app_display_name": "Email Notifications",
        "device_display_name": address,
        "lang": "en",
        "data": {"brand": "Element"},
        **more,
    }


class EmailTestCase(MailTestCase):
    """Alice has a pusher by e-mail, and is in a room with Bob."""

    delay: ClassVar[float] = DELAY

    async def setUp(self) -> None:
        self.email = {"notification_delay": self.delay, **self.email}
        await super().setUp()
        self.alice, self.bob = [await self.register(name) for name in ("alice", "bob")]
        self.room = await self.bob.create_room(public=True, name="Kitchen")
        await self.alice.join(self.room)
        await self.add(self.alice, ALICE)
        self.mails.mails.clear()

    async def set_pusher(self, **more: Any) -> None:
        await self.alice.post("/pushers/set", email_pusher(**more))

    async def pushkeys(self) -> list[str]:
        """The pushkeys of Alice's pushers."""
        return [each["pushkey"] for each in (await self.alice.get("/pushers"))["pushers"]]

    async def mailed(self, number: int) -> list[Mail]:
        """What the mail server has accepted, once it is so much."""
        await until(lambda: len(self.mails.mails) >= number)
        return self.mails.mails

    async def assert_no_more(self, number: int) -> None:
        """No more is mailed than this."""
        await pause(self.delay + DELAY)
        self.assertEqual([mail.subject for mail in self.mails.mails[number:]], [])

    def stored(self) -> tuple[int | None, DigestState]:
        """The progress of Alice's pusher in the database: since when something waits, and more."""
        with psycopg.connect(self.dsn) as connection:
            ((since, state),) = connection.execute("SELECT behind_since, digest FROM pushers")
        return since, decode_state(state)

    def unsubscribe_link(self, mail: Mail) -> str:
        """The link in the headers of a mail."""
        return str(mail.message["List-Unsubscribe"]).strip("<>")
