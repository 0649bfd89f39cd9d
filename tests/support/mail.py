"""A mail server for tests: takes mails on a loopback port, by real SMTP, and keeps them."""

import email
import email.policy
import re
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, gatherResults, maybeDeferred, succeed
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.mail.imap4 import LOGINCredentials, PLAINCredentials
from twisted.mail.smtp import (
    ESMTP,
    IMessage,
    IMessageDelivery,
    SMTPBadRcpt,
    SMTPBadSender,
    SMTPServerError,
)
from twisted.python.failure import Failure
from zope.interface import implementer

LINK = re.compile(r"http\S+")


@dataclass(frozen=True)
class Mail:
    """A received mail. `encrypted`: it came through TLS; `user`: the login name of the sender."""

    sender: str
    recipient: str
    message: EmailMessage
    encrypted: bool
    user: str | None

    @property
    def subject(self) -> str:
        """The subject line."""
        return str(self.message["Subject"])

    def body(self, kind: str = "plain") -> str:
        """The readable text: `plain` or `html`."""
        part = self.message.get_body((kind,))
        assert part is not None, f"the mail has a part text/{kind}"
        return str(part.get_content())

    @property
    def link(self) -> str:
        """The first link of the text."""
        found = LINK.search(self.body())
        assert found is not None, self.body()
        return found[0]


class MailServer:
    """Listens from its construction until `stop`.

    With `certificate`, options for TLS, it offers STARTTLS, or begins with TLS if it is `implicit`;
    with `users` it requires a name and a password; if `silent` it never sends a byte. Mails to an
    address in `unknown` are refused, those in `deferred` for now; while `is_down`, connections end
    at once, and while `is_mute`, mails are accepted without a response. `greeting` is sent instead
    of one that begins a dialogue; `sender_refused` is a code, and with `refuses_contents`, mails
    are refused once their contents are there.
    """

    def __init__(
        self,
        *,
        certificate: Any = None,
        implicit: bool = False,
        users: dict[str, str] | None = None,
        silent: bool = False,
    ) -> None:
        self.mails: list[Mail] = []
        self.unknown: set[str] = set()
        self.deferred: set[str] = set()
        self.is_down = False
        self.is_mute = False
        self.greeting: bytes | None = None
        self.sender_refused: int | None = None
        self.refuses_contents = False
        self.refuses_relaying = False
        self.connections = 0
        self._open: list[Deferred[None]] = []
        self._starttls = None if implicit else certificate
        self._portal = _portal(self, users) if users else None
        factory = Factory.forProtocol(self._silence if silent else self._protocol)
        listen: Any = reactor
        if implicit:
            self._port = listen.listenSSL(0, factory, certificate, interface="127.0.0.1")
        else:
            self._port = listen.listenTCP(0, factory, interface="127.0.0.1")

    @property
    def port(self) -> int:
        """The TCP port."""
        return int(self._port.getHost().port)

    async def stop(self) -> None:
        """Stop listening, and wait until all connections are closed."""
        await maybeDeferred(self._port.stopListening)
        await gatherResults(self._open)

    def to(self, recipient: str) -> list[Mail]:
        """The mails to one address."""
        return [mail for mail in self.mails if mail.recipient == recipient]

    def _opened(self, protocol: Any) -> Any:
        self.connections += 1
        ended: Deferred[None] = Deferred()
        self._open.append(ended)
        lost = protocol.connectionLost

        def connection_lost(reason: Failure) -> None:
            lost(reason)
            ended.callback(None)

        protocol.connectionLost = connection_lost
        return protocol

    def _silence(self) -> Protocol:
        silence: Protocol = self._opened(Protocol())
        return silence

    def _protocol(self) -> Protocol:
        if self.is_down or self.greeting is not None:
            dropping: Protocol = self._opened(_Dropped(self.greeting))
            return dropping
        ways = {b"PLAIN": PLAINCredentials, b"LOGIN": LOGINCredentials} if self._portal else {}
        protocol: Any = ESMTP(ways, self._starttls)  # type: ignore[no-untyped-call]
        protocol.portal = self._portal
        protocol.host = b"mail.test"
        if self._portal is None:
            protocol.delivery = Mailbox(self, None)
        speaking: ESMTP = self._opened(protocol)
        return speaking


class _Dropped(Protocol):
    """A connection that ends at once, or after a line."""

    def __init__(self, line: bytes | None) -> None:
        self._line = line

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if self._line is None:
            transport.abortConnection()
        else:
            transport.write(self._line + b"\r\n")
            transport.loseConnection()


@implementer(IMessageDelivery)
class Mailbox:
    """The destination of mails of one connection."""

    def __init__(self, server: MailServer, user: str | None) -> None:
        self._server = server
        self._user = user
        self._sender = ""

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by mail.test"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        if self._server.sender_refused is not None:
            raise SMTPBadSender(origin, self._server.sender_refused, "Not now")
        self._sender = str(origin)
        return origin

    def validateTo(self, user: Any) -> Any:
        recipient = str(user.dest)
        if self._server.refuses_relaying:
            raise SMTPBadRcpt(user, code=550, resp="5.7.1 Relaying denied")
        if recipient in self._server.unknown:
            raise SMTPBadRcpt(user)
        if recipient in self._server.deferred:
            raise SMTPBadRcpt(user, code=451, resp="Try again later")
        encrypted = ISSLTransport.providedBy(user.protocol.transport)
        return lambda: Incoming(
            self._server, self._sender, recipient, encrypted=encrypted, user=self._user
        )


@implementer(IMessage)
class Incoming:
    """One mail on its way in."""

    def __init__(
        self, server: MailServer, sender: str, recipient: str, *, encrypted: bool, user: str | None
    ) -> None:
        self._server = server
        self._envelope = (sender, recipient)
        self._encrypted = encrypted
        self._user = user
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        message: Any = email.message_from_bytes(
            b"\r\n".join(self._lines) + b"\r\n", policy=email.policy.default
        )
        if self._server.refuses_contents:
            return fail(SMTPServerError(550, "Not this one"))
        sender, recipient = self._envelope
        mail = Mail(sender, recipient, message, self._encrypted, self._user)
        self._server.mails.append(mail)
        return Deferred() if self._server.is_mute else succeed(None)

    def connectionLost(self) -> None:
        """An unfinished mail is not kept."""


class _Realm:
    def __init__(self, server: MailServer) -> None:
        self._server = server

    def requestAvatar(self, avatar: Any, mind: Any, *interfaces: Any) -> Any:
        return IMessageDelivery, Mailbox(self._server, avatar.decode()), lambda: None


def _portal(server: MailServer, users: dict[str, str]) -> Portal:
    checker = InMemoryUsernamePasswordDatabaseDontUse()  # type: ignore[no-untyped-call]
    for name, password in users.items():
        checker.addUser(name.encode(), password.encode())  # type: ignore[no-untyped-call]
    return Portal(_Realm(server), [checker])  # type: ignore[arg-type]
