"""Mail servers that fail, and restarts: nothing is lost, and nothing comes twice without need."""

from unittest.mock import patch

import psycopg
from twisted.mail.smtp import SMTPServerError

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.observability.exposition import Exposition
from homeserver.push.email import mail_slots, pending_digest
from tests.push.email.email_case import ALICE, DELAY, EmailTestCase
from tests.support.reactor import pause, until

SOON = RetrySchedule((0.2,))


class MailFailureTests(EmailTestCase):
    async def setUp(self) -> None:
        for module, name in ((mail_slots, "RETRIES"), (pending_digest, "REFUSED")):
            replaced = patch.object(module, name, SOON)
            replaced.start()
            self.addCleanup(replaced.stop)
        await super().setUp()
        await self.set_pusher()

    async def test_what_waits_survives_a_restart(self) -> None:
        """Nothing is in memory only."""
        await self.bob.say(self.room, "before")
        await self.restart_server(self.alice, self.bob)

        (mail,) = await self.mailed(1)

        self.assertIn("before", mail.body())
        await self.assert_no_more(1)
        self.assertIsNone(self.stored()[0])

    async def test_a_mail_server_that_was_down_gets_everything_later(self) -> None:
        """What waits for it is in the database, and costs no memory."""
        self.mails.is_down = True
        tried = self.mails.connections
        await self.bob.say(self.room, "while it is down")
        await until(lambda: self.mails.connections > tried + 1)
        await self.bob.say(self.room, "still down")
        self.mails.is_down = False

        await until(lambda: any("still down" in mail.body() for mail in self.mails.mails))

        texts = "".join(mail.body() for mail in self.mails.mails)
        self.assertEqual(texts.count("while it is down"), 1)
        self.assertEqual(texts.count("still down"), 1)

    async def test_a_mail_server_that_is_down_for_long_costs_no_mail(self) -> None:
        """What the server as a whole refuses says nothing about a mail, however long it lasts."""
        self.patch(pending_digest, "GIVE_UP_MS", 0)
        await self.bob.say(self.room, "while it is down")
        for name, value in (("is_down", True), ("greeting", b"421 busy"), ("sender_refused", 451)):
            setattr(self.mails, name, value)
            tried = self.mails.connections
            await until(lambda tried=tried: self.mails.connections > tried + 2)
            with psycopg.connect(self.dsn) as connection:
                ((failing,),) = connection.execute("SELECT failing_since_ms FROM pushers")
            self.assertIsNone(failing)
            setattr(self.mails, name, False if value is True else None)

        (mail,) = await self.mailed(1)

        self.assertIn("while it is down", mail.body())
        await self.assert_no_more(1)

    async def test_a_mail_whose_contents_are_refused_is_tried_again(self) -> None:
        """A spam filter that was mistaken may learn."""
        self.mails.refuses_contents = True
        tried = self.mails.connections
        await self.bob.say(self.room, "hello")
        await until(lambda: self.mails.connections > tried + 1)
        self.mails.refuses_contents = False

        (mail,) = await self.mailed(1)

        self.assertIn("hello", mail.body())
        self.flushLoggedErrors(SMTPServerError)
        await until(lambda: self.metric("accepted_total") == 1)
        self.assertGreaterEqual(self.metric("refused_total"), 1)
        self.assertEqual(self.metric("failed_total"), 0)

    def metric(self, name: str) -> float:
        """A metric of mails."""
        lines = Exposition(self.server.metrics).text().decode().splitlines()
        return float(dict(line.rsplit(" ", 1) for line in lines)[f"homeserver_mails_{name}"])

    async def test_a_mail_in_doubt_is_sent_again_as_the_same_mail(self) -> None:
        """It was accepted, and the server did not live to hear it."""
        self.mails.is_mute = True
        await self.bob.say(self.room, "in doubt")
        await self.mailed(1)
        self.mails.is_mute = False
        self.patch(pending_digest, "STOP_SECONDS", 0.1)
        await self.restart_server(self.alice, self.bob)
        await self.bob.say(self.room, "after the restart")

        first, again, later = await self.mailed(3)

        self.assertEqual(again.message["Message-ID"], first.message["Message-ID"])
        self.assertEqual(again.body(), first.body())
        self.assertNotEqual(later.message["Message-ID"], first.message["Message-ID"])
        self.assertIn("after the restart", later.body())
        self.assertNotIn("in doubt", later.body())
        await self.assert_no_more(3)

    async def test_a_mailbox_that_is_full_for_now_gets_the_mail_later(self) -> None:
        """And the mail server gets those of others meanwhile."""
        self.mails.deferred.add(ALICE)
        tried = self.mails.connections
        await self.bob.say(self.room, "hello")
        await until(lambda: self.mails.connections > tried + 1)
        self.assertEqual(await self.pushkeys(), [ALICE])
        self.mails.deferred.clear()

        (mail,) = await self.mailed(1)

        self.assertIn("hello", mail.body())

    async def test_a_mailbox_that_is_gone_gets_no_more_mail(self) -> None:
        """After a day of refusals the pusher is deleted; not before, since servers err."""
        self.mails.unknown.add(ALICE)
        tried = self.mails.connections
        await self.bob.say(self.room, "hello")
        await until(lambda: self.mails.connections > tried + 1)
        self.assertEqual(await self.pushkeys(), [ALICE])

        self.patch(pending_digest, "GIVE_UP_MS", 0)
        for _ in range(100):
            if not await self.pushkeys():
                break
            await pause(DELAY / 4)

        self.assertEqual(await self.pushkeys(), [])

    async def test_a_mail_that_is_always_refused_is_given_up(self) -> None:
        """One message that a spam filter dislikes does not end all mails."""
        self.mails.deferred.add(ALICE)
        self.patch(pending_digest, "GIVE_UP_MS", 0)
        tried = self.mails.connections
        await self.bob.say(self.room, "spam")
        await until(lambda: self.mails.connections > tried and self.stored()[0] is None)
        self.mails.deferred.clear()

        await self.bob.say(self.room, "hello")
        (mail,) = await self.mailed(1)

        self.assertNotIn("spam", mail.body())
        self.assertEqual(await self.pushkeys(), [ALICE])

    async def test_a_mail_that_cannot_be_made_is_given_up(self) -> None:
        """A programming error in one mail does not end all others."""
        self.patch(pending_digest, "ERROR_SECONDS", 0.05)
        contents = self.server.parts.sync.push.pushers.digests._contents
        with patch.object(type(contents), "build", side_effect=RuntimeError("poison")):
            await self.bob.say(self.room, "poison")
            await until(lambda: len(self.flushLoggedErrors(RuntimeError)) == 1)
            await until(lambda: self.stored()[0] is None)
        self.flushLoggedErrors(RuntimeError)

        await self.bob.say(self.room, "hello")
        (mail,) = await self.mailed(1)

        self.assertNotIn("poison", mail.body())
