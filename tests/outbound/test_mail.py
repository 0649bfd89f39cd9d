"""Mails, sent to a real mail server on a loopback port."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.ssl import PrivateCertificate
from twisted.mail.smtp import SMTPServerError
from twisted.trial.unittest import TestCase

from homeserver.config.sections.contact import EmailSettings
from homeserver.outbound import mail
from homeserver.outbound.client_tls import ClientTls
from homeserver.outbound.mail import Mailer
from homeserver.protocol.errors import InvalidParam, MailNotSent, MailRefused
from tests.storage.test_tls import make_certificate
from tests.support.folders import temporary_folder
from tests.support.mail import MailServer


class MailTestCase(TestCase):
    tls: ClientTls | None = None

    def serve(self, **how: Any) -> MailServer:
        """A mail server for the duration of the test."""
        self.server = MailServer(**how)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop()))
        return self.server

    def mailer(self, **settings: Any) -> Mailer:
        """A mailer that uses that server."""
        values = {"smtp_host": "localhost", "sender": "Example <noreply@example.org>"}
        email = EmailSettings(**(values | {"smtp_port": self.server.port} | settings))
        mailer = Mailer(reactor, email, "example.org", self.tls)
        self.addCleanup(lambda: Deferred.fromCoroutine(mailer.stop()))
        return mailer

    def sending(self, mailer: Mailer, recipient: str = "bob@example.com") -> Deferred[None]:
        """A mail that is being sent."""
        sent = mailer.send(recipient, "Grüße", "Hello\n.\n", "<p>Hello</p>")
        return Deferred.fromCoroutine(sent)

    def certificate(self, *, trusted: bool = False) -> Any:
        """Options for TLS, with a certificate for localhost, which mailers may trust."""
        directory = temporary_folder(self)
        certificate, key = make_certificate(directory)
        if trusted:
            self.tls = ClientTls(ca_file=certificate)
        loaded = PrivateCertificate.loadPEM(certificate.read_text() + key.read_text())
        return loaded.options()


class SendingTests(MailTestCase):
    async def test_a_mail_arrives_in_two_forms(self) -> None:
        """A reader of the plain text gets the same content as others."""
        self.serve()

        await self.sending(self.mailer())

        (arrived,) = self.server.mails
        self.assertEqual(
            (arrived.sender, arrived.recipient), ("noreply@example.org", "bob@example.com")
        )
        self.assertEqual(arrived.message["From"], "Example <noreply@example.org>")
        self.assertEqual(arrived.subject, "Grüße")
        self.assertEqual(arrived.body().splitlines(), ["Hello", "."])
        self.assertEqual(arrived.body("html").strip(), "<p>Hello</p>")

    async def test_a_mail_asks_for_no_automatic_reply(self) -> None:
        """No out-of-office reply comes back."""
        self.serve()

        await self.sending(self.mailer())

        message = self.server.mails[0].message
        self.assertEqual(message["Auto-Submitted"], "auto-generated")
        self.assertTrue(message["Message-ID"].endswith("@example.org>"))
        self.assertTrue(message["Date"])

    async def test_a_domain_beyond_ascii_is_written_in_ascii(self) -> None:
        """Mail servers know bücher.example by another name."""
        self.serve()

        await self.sending(self.mailer(), "bob@bücher.example")

        self.assertEqual(self.server.mails[0].recipient, "bob@xn--bcher-kva.example")

    async def test_a_mailbox_beyond_ascii_cannot_be_written_to(self) -> None:
        """The client gets an error, instead of waiting for a mail."""
        self.serve()

        await self.assertFailure(self.sending(self.mailer(), "jürgen@example.com"), InvalidParam)

        self.assertEqual(self.server.connections, 0)

    async def test_an_unknown_mailbox_is_reported(self) -> None:
        """A mistyped address is found at once."""
        self.serve().unknown.add("bob@example.com")

        await self.assertFailure(self.sending(self.mailer()), InvalidParam)

    async def test_a_mail_whose_contents_are_refused_is_not_sent(self) -> None:
        """Its recipient was accepted before, so only the last response tells."""
        self.serve().refuses_contents = True

        await self.assertFailure(self.sending(self.mailer()), MailRefused)

        self.flushLoggedErrors(SMTPServerError)

    async def test_a_mailbox_that_is_full_refuses_one_mail(self) -> None:
        """The mail server takes others."""
        self.serve().deferred.add("bob@example.com")
        await self.assertFailure(self.sending(self.mailer()), MailRefused)

    async def test_a_policy_does_not_make_a_mailbox_unknown(self) -> None:
        """A mail server that relays nothing uses the code of unknown mailboxes."""
        self.serve()
        mailer = self.mailer()
        for sender_refused, relays in ((None, False), (451, True), (550, True)):
            self.server.sender_refused = sender_refused
            self.server.refuses_relaying = not relays
            error = await self.assertFailure(self.sending(mailer), MailNotSent)
            self.assertEqual(type(error), MailNotSent if relays else MailRefused)

    async def test_a_mail_server_that_takes_nothing_refuses_no_single_mail(self) -> None:
        """Its greeting or its response to the sender says so, for now or by a wrong setting."""
        self.serve()
        mailer = self.mailer()
        for greeting in (b"421 busy", b"450 later", b"554 no", b"nonsense"):
            self.server.greeting = greeting
            error = await self.assertFailure(self.sending(mailer), MailNotSent)
            self.assertEqual(type(error), MailNotSent)

    async def test_an_unavailable_mail_server_is_reported(self) -> None:
        """The client may try again later."""
        self.serve()
        mailer = self.mailer()
        await self.server.stop()

        error = await self.assertFailure(self.sending(mailer), MailNotSent)

        self.assertEqual((error.status, error.errcode), (503, "M_EMAIL_SEND_ERROR"))
        self.assertNotIn("localhost", str(error))

    async def test_a_mail_server_that_hangs_delays_no_request_for_long(self) -> None:
        """The request ends, and so does the connection."""
        self.serve(silent=True)

        await self.assertFailure(self.sending(self.mailer(timeout=0.05)), MailNotSent)

        self.assertEqual(self.server.connections, 1)

    async def test_only_so_many_mails_are_sent_at_once_and_wait(self) -> None:
        """A flood of requests ends at a bound, not in memory."""
        self.serve(silent=True)
        self.patch(mail, "MAX_WAITING", 2)
        mailer = self.mailer(timeout=0.2)

        sending = [self.sending(mailer) for _ in range(mail.MAX_CONNECTIONS + 3)]

        refused = [self.assertFailure(one, MailNotSent) for one in sending]
        errors = [str(error) for error in await gatherResults(refused)]
        self.assertEqual(
            [text == "Too many mails are waiting to be sent" for text in errors],
            [False] * (mail.MAX_CONNECTIONS + 2) + [True],
        )


class EncryptionTests(MailTestCase):
    async def test_encryption_that_is_offered_is_used_with_any_certificate(self) -> None:
        """A local mail server often has a self-signed certificate."""
        self.serve(certificate=self.certificate())

        await self.sending(self.mailer())

        self.assertTrue(self.server.mails[0].encrypted)

    async def test_encryption_can_be_switched_off(self) -> None:
        """Some mail servers offer encryption that does not work."""
        self.serve(certificate=self.certificate())

        await self.sending(self.mailer(tls="off"))

        self.assertFalse(self.server.mails[0].encrypted)

    async def test_required_encryption_is_not_done_without(self) -> None:
        """An attacker on the path could have removed the offer."""
        self.serve()

        await self.assertFailure(self.sending(self.mailer(tls="required")), MailNotSent)

        self.assertEqual(self.server.mails, [])

    async def test_required_encryption_checks_the_certificate(self) -> None:
        """An attacker on the path could use a self-signed certificate."""
        self.serve(certificate=self.certificate())

        await self.assertFailure(self.sending(self.mailer(tls="required")), MailNotSent)

        self.assertEqual(self.server.mails, [])

    async def test_required_encryption_checks_for_whom_the_certificate_is(self) -> None:
        """An attacker can have a valid certificate for another name."""
        self.serve(certificate=self.certificate(trusted=True))
        mailer = self.mailer(tls="required", smtp_host="127.0.0.1")

        await self.assertFailure(self.sending(mailer), MailNotSent)

        self.assertEqual(self.server.mails, [])

    async def test_a_password_is_given_under_encryption(self) -> None:
        """Mail servers on the internet accept mails only from known users."""
        self.serve(certificate=self.certificate(trusted=True), users={"hs": "swordfish"})
        named = {"smtp_user": "hs", "smtp_password": "swordfish", "tls": "required"}

        await self.sending(self.mailer(**named))

        (arrived,) = self.server.mails
        self.assertEqual((arrived.encrypted, arrived.user), (True, "hs"))

    async def test_tls_from_the_start(self) -> None:
        """Port 465."""
        self.serve(
            certificate=self.certificate(trusted=True), implicit=True, users={"hs": "swordfish"}
        )
        named = {"smtp_user": "hs", "smtp_password": "swordfish", "tls": "implicit"}

        await self.sending(self.mailer(**named))

        (arrived,) = self.server.mails
        self.assertEqual((arrived.encrypted, arrived.user), (True, "hs"))

    async def test_a_wrong_password_is_not_reported_to_clients(self) -> None:
        """Only the administrator can correct it."""
        self.serve(certificate=self.certificate(trusted=True), users={"hs": "swordfish"})
        named = {"smtp_user": "hs", "smtp_password": "guess", "tls": "required"}

        error = await self.assertFailure(self.sending(self.mailer(**named)), MailNotSent)

        self.assertEqual(str(error), "The mail could not be sent")
        self.assertEqual(self.server.mails, [])
