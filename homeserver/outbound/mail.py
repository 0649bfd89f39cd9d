"""Mail: delivery of messages to the configured mail server, by SMTP.

Each mail has a connection of its own, since mails are rare. The numbers of open connections and of
waiting mails are bounded, and no delivery lasts longer than `email.timeout`, so a mail server that
does not respond blocks no caller for long.

https://www.rfc-editor.org/rfc/rfc5321 https://www.rfc-editor.org/rfc/rfc3207 (STARTTLS)
"""

from collections.abc import Mapping
from email.headerregistry import BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, Policy
from email.utils import formatdate, make_msgid, parseaddr
from io import BytesIO
from typing import IO, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.mail.imap4 import LOGINAuthenticator, PLAINAuthenticator
from twisted.mail.smtp import ESMTPClient, SMTPClientError, SMTPDeliveryError
from twisted.python.failure import Failure

from homeserver.config.sections.contact import EmailSettings
from homeserver.outbound.client_tls import ClientTls, TlsTo
from homeserver.outbound.networks import open_network
from homeserver.protocol.errors import InvalidParam, MailNotSent, MailRefused

MAX_CONNECTIONS = 4
MAX_WAITING = 50
NO_SUCH_MAILBOX = (550, 551, 553)
SERVER_CLOSES = 421
# Refusals by a policy, such as "relaying denied", say nothing about the mailbox (RFC 3463).
OF_POLICY = b"5.7."
log = Logger()


class UrlHeader(UnstructuredHeader, BaseHeader):
    """A header of a URL, which mail programs find only if it is neither encoded nor broken."""

    def fold(self, *, policy: Policy) -> str:
        return (
            f"{self.name}: {self}{policy.linesep}"
            if self.isascii()
            else super().fold(policy=policy)
        )


HEADERS = HeaderRegistry()
HEADERS.map_to_type("list-unsubscribe", UrlHeader)
POLICY = SMTP.clone(header_factory=HEADERS)


class Mailer:
    """A sender of mails. `hostname` is the name of this server in SMTP.

    `tls` verifies certificates; without it, the settings decide, with the system's authorities.
    """

    def __init__(
        self, reactor: Any, settings: EmailSettings, hostname: str, tls: ClientTls | None = None
    ) -> None:
        assert settings.smtp_host is not None, "there is a mail server"
        assert settings.sender is not None, "mails have a sender"
        self._reactor = reactor
        self._network = open_network(reactor, "mail", allow_private_addresses=True)
        self._settings = settings
        self._host: str = settings.smtp_host
        self._sender: str = settings.sender
        self._hostname = hostname
        self._tls = tls or ClientTls(verify=settings.tls != "opportunistic")
        self._connections = DeferredSemaphore(MAX_CONNECTIONS)
        self._open: set[Delivery] = set()

    async def stop(self) -> None:
        """Abort open connections; no mail is sent after this."""
        deliveries = list(self._open)
        for delivery in deliveries:
            delivery.abort()
        for delivery in deliveries:
            await delivery.closed

    async def send(
        self,
        recipient: str,
        subject: str,
        text: str,
        html: str,
        *,
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a mail in two forms; returns when the mail server has accepted it.

        `name` is the first part of its Message-ID, if it has to be the same when it is sent again.

        Raises `InvalidParam` for an address to which no mail can be sent, `MailRefused` for a mail
        that the mail server does not accept, and otherwise `MailNotSent`.
        """
        try:
            envelope = _ascii_address(recipient)
        except UnicodeError:
            raise InvalidParam("This server cannot send mail to this address") from None
        if len(self._connections.waiting) >= MAX_WAITING:
            raise MailNotSent("Too many mails are waiting to be sent")
        content = self._compose(envelope, subject, text, html, name, headers or {})
        sending = self._connections.run(self._begin, envelope, content)
        try:
            await sending.addTimeout(self._settings.timeout, self._reactor)
        except CancelledError:
            raise
        except Exception as error:
            raise _explained(error) from None

    def _begin(self, recipient: str, content: bytes) -> Deferred[None]:
        return Deferred.fromCoroutine(self._deliver(recipient, content))

    async def _deliver(self, recipient: str, content: bytes) -> None:
        endpoint: Any = HostnameEndpoint(self._network, self._host, self._settings.smtp_port)
        if self._settings.tls == "implicit":
            endpoint = wrapClientTLS(self._tls.to(self._host), endpoint)
        starttls = self._settings.tls in ("opportunistic", "required")
        delivery = Delivery(
            self._settings,
            self._tls.to(self._host) if starttls else None,
            self._hostname,
            recipient,
            content,
        )
        await endpoint.connect(Factory.forProtocol(lambda: delivery))
        self._open.add(delivery)
        delivery.closed.addCallback(lambda _: self._open.discard(delivery))
        await delivery.done

    def _compose(
        self,
        recipient: str,
        subject: str,
        text: str,
        html: str,
        name: str | None,
        headers: Mapping[str, str],
    ) -> bytes:
        message = EmailMessage(POLICY)
        message["From"] = self._sender
        message["To"] = recipient
        message["Subject"] = subject
        message["Date"] = formatdate()
        domain = parseaddr(self._sender)[1].rpartition("@")[2]
        message["Message-ID"] = f"<{name}@{domain}>" if name else make_msgid(domain=domain)
        # Asks for no automatic replies, such as out-of-office messages.
        message["Auto-Submitted"] = "auto-generated"
        for header, value in headers.items():
            message[header] = value
        message.set_content(text)
        message.add_alternative(html, subtype="html")
        # The client adds the carriage returns.
        return message.as_bytes().replace(b"\r\n", b"\n")


class Delivery(ESMTPClient):
    """The delivery of one mail.

    `done` fires when the mail server has accepted it, `closed` when the connection has ended, a
    moment later. `starttls` encrypts if the mail server offers it.
    """

    # The log of the dialogue would contain the password.
    debug = False

    def __init__(
        self,
        settings: EmailSettings,
        starttls: TlsTo | None,
        hostname: str,
        recipient: str,
        content: bytes,
    ) -> None:
        password = settings.smtp_password
        super().__init__(  # type: ignore[no-untyped-call]
            None if password is None else password.encode(),
            starttls,
            hostname,
        )
        self.done: Deferred[None] = Deferred(lambda _: self.abort())
        self.closed: Deferred[None] = Deferred()
        self.timeout: Any = settings.timeout
        self.requireTransportSecurity = settings.tls == "required"
        self.requireAuthentication = settings.smtp_user is not None
        if settings.smtp_user is not None:
            user = settings.smtp_user.encode()
            self.authenticators += [PLAINAuthenticator(user), LOGINAuthenticator(user)]
        self._sender: str | None = parseaddr(settings.sender or "")[1]
        self._recipient = recipient
        self._content = BytesIO(content)

    def getMailFrom(self) -> str | None:
        sender, self._sender = self._sender, None
        return sender

    def getMailTo(self) -> list[str]:
        return [self._recipient]

    def getMailData(self) -> IO[bytes]:
        return self._content

    def sentMail(self, code: int, resp: Any, numOk: int, addresses: Any, log: Any) -> None:
        if self.done.called:
            return
        # Recipients count as accepted also if the mail itself was refused.
        if numOk and 200 <= code < 300:
            self.done.callback(None)
        else:
            self.done.errback(SMTPDeliveryError(code, resp, None, addresses))

    def sendError(self, exc: Exception) -> None:
        super().sendError(exc)  # type: ignore[no-untyped-call]
        if not self.done.called:
            self.done.errback(exc)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if not self.done.called:
            self.done.errback(reason)
        self.closed.callback(None)

    def timeoutConnection(self) -> None:
        self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()


def _ascii_address(address: str) -> str:
    """An address for SMTP without extensions. Raises `UnicodeError`."""
    localpart, _, domain = address.rpartition("@")
    return f"{localpart.encode('ascii').decode()}@{domain.encode('idna').decode()}"


def _explained(error: Exception) -> InvalidParam | MailNotSent:
    """The error for the client. The mail server's reason is only logged."""
    if isinstance(error, SMTPDeliveryError):
        recipients: Any = error.addresses or ()
        log.warn("a mail was refused: {code} {reason!r}", code=error.code, reason=error.resp)
        if not recipients or error.code == SERVER_CLOSES:
            # It refused the sender, or everything: no mail would have been accepted.
            return MailNotSent("The mail could not be sent")
        for _, code, reason in recipients:
            if code in NO_SUCH_MAILBOX and not reason.startswith(OF_POLICY):
                return InvalidParam("The mail server does not know this address")
        return MailRefused("The mail server did not accept the mail")
    reason = f"{error.code} {error.resp!r}" if isinstance(error, SMTPClientError) else str(error)
    log.warn("a mail was not sent: {kind}: {reason}", kind=type(error).__name__, reason=reason)
    return MailNotSent("The mail could not be sent")
