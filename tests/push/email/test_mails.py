"""Mails about unread messages: when they are sent, and what is in them."""

from typing import Any, ClassVar

from tests.push.email.email_case import ALICE, DELAY, LONG_DELAY, EmailTestCase
from tests.support.reactor import until

HOSTILE = "\u202eevil\r\nBcc: all@example.com\u2066 <img src=https://evil.example/x> 👩\u200d💻"


class MailTests(EmailTestCase):
    async def test_silent_messages_cause_no_mail(self) -> None:
        """The rules that keep a phone quiet keep a mailbox quiet."""
        await self.set_pusher()
        await self.alice.put(f"/pushrules/global/room/{self.room}", {"actions": ["dont_notify"]})

        await self.bob.say(self.room, "muted")

        await self.assert_no_more(0)

    async def test_a_room_is_mailed_ever_less_often_until_it_is_read(self) -> None:
        """Each pause is twice the last one; reading starts again with the first one."""
        await self.set_pusher()
        pauses: list[float] = []
        for number in range(3):
            last = await self.bob.say(self.room, f"message {number}")
            await self.mailed(number + 1)
            await until(lambda: self._pause() not in {None, *pauses})
            pauses.append(self._pause() or 0.0)
        self.assertEqual(pauses, [DELAY, DELAY * 2, DELAY * 4])

        await self.alice.read(self.room, last)
        await self.bob.say(self.room, "after reading")
        await self.mailed(4)

        await until(lambda: self._pause() == DELAY)

    def _pause(self) -> float | None:
        """The pause of the only room, in the database."""
        rooms = self.stored()[1].rooms.values()
        return next((pause.seconds for pause in rooms), None)

    async def test_encrypted_messages_are_mailed_without_content(self) -> None:
        """Nothing of them is known here, and a mailbox must not get what there is."""
        await self.set_pusher()
        content = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "SECRET", "body": "SECRET"}
        await self.bob.send(self.room, "m.room.encrypted", content)

        (mail,) = await self.mailed(1)

        self.assertIn("bob sent an encrypted message", mail.body())
        self.assertNotIn("SECRET", mail.message.as_string())

    async def test_hostile_names_and_messages_are_text(self) -> None:
        """No header, markup or direction mark gets from a message into a mail."""
        await self.set_pusher(data={"brand": HOSTILE[:64]})
        await self.bob.put(f"/profile/{self.bob.user_id}/displayname", {"displayname": HOSTILE})
        await self.bob.set_state(self.room, "m.room.name", {"name": HOSTILE + "n" * 60_000})
        await self.bob.say(self.room, HOSTILE + "x" * 60_000)

        (mail,) = await self.mailed(1)

        self.assertIn(" in evil Bcc: all@example.com <img src=", mail.subject)
        self.assertTrue(mail.subject.startswith("[evil Bcc: all@example.com <img src="))
        self.assertLess(len(mail.subject), 200)
        self.assertIsNone(mail.message["Bcc"])
        for kind in ("plain", "html"):
            body = mail.body(kind)
            self.assertFalse(set("\u202e\u2066") & set(body))
            self.assertLess(len(body), 10_000)
        self.assertNotIn("<img", mail.body("html"))
        self.assertIn("&lt;img", mail.body("html"))

    async def test_garbage_in_messages_keeps_no_mail_back(self) -> None:
        """Clients and other servers can send any JSON."""
        await self.set_pusher()
        garbage: list[Any] = [None, 7, True, [], {}, [{"m.text": []}]]
        for value in garbage:
            await self.bob.send(self.room, "m.room.message", {"msgtype": value, "body": value})
        await self.bob.send(self.room, "m.room.message", {"msgtype": "m.text", "body": "in order"})

        await until(lambda: any("in order" in mail.body() for mail in self.mails.mails))


class BeforeTheMailTests(EmailTestCase):
    delay: ClassVar[float] = LONG_DELAY

    async def test_what_was_read_or_taken_back_is_not_mailed(self) -> None:
        """A mail that a user has no use for is spam."""
        await self.set_pusher()
        read = await self.bob.say(self.room, "read")
        await self.alice.read(self.room, read)
        await self.assert_no_more(0)
        gone = await self.bob.say(self.room, "taken back")
        await self.bob.redact(self.room, gone)

        await self.assert_no_more(0)
        self.assertIsNone(self.stored()[0])

    async def test_who_is_active_gets_no_mail(self) -> None:
        """Somebody who writes in another room has a client open."""
        await self.set_pusher()
        other = await self.alice.create_room(name="Notes")
        await self.bob.say(self.room, "not read")
        await self.alice.say(other, "I am here")

        await self.assert_no_more(0)
        await self.bob.say(self.room, "later")
        (mail,) = await self.mailed(1)

        self.assertNotIn("not read", mail.body())
        self.assertIn("later", mail.body())

    async def test_unread_messages_of_all_rooms_are_one_mail(self) -> None:
        """A mailbox is not flooded."""
        await self.set_pusher()
        garden = await self.bob.create_room(invite=[self.alice], name="Garden")
        events = [await self.bob.say(self.room, f"message {number}") for number in range(7)]

        (mail,) = await self.mailed(1)

        self.assertEqual((mail.sender, mail.recipient), ("noreply@example.org", ALICE))
        self.assertEqual(mail.subject, "[Element] 8 unread messages in Kitchen and 1 other room")
        text, html = mail.body(), mail.body("html")
        for body in (text, html):
            shown = [number for number in range(7) if f"message {number}" in body]
            self.assertEqual(shown, [2, 3, 4, 5, 6])
            self.assertIn("2 earlier messages", body)
            self.assertIn("invites you", body)
            self.assertIn(f"https://matrix.to/#/{garden}", body)
        self.assertIn(f"https://matrix.to/#/{self.room}/{events[-1]}", html)
        self.assertIn("bob: message 6", text)
        await self.assert_no_more(1)

    async def test_a_busy_server_makes_bounded_mails(self) -> None:
        """Ten rooms are shown, and the others are counted."""
        rooms = [await self.bob.create_room(name=f"Room {number}") for number in range(12)]
        await self.set_pusher()
        for room in rooms:
            await self.bob.invite(room, self.alice)

        (mail,) = await self.mailed(1)

        self.assertEqual(mail.subject, "[Element] 12 unread messages in Room 11 and 11 other rooms")
        self.assertIn("in 2 more rooms", mail.body())
        self.assertEqual(mail.body().count("invites you"), 10)
