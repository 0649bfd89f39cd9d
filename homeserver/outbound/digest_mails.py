"""Mails about unread messages. All texts in a digest are cleaned: they have one line each.

The templates are `digest.txt` and `digest.html` in `templates/mails`. A mail loads nothing from any
server, so nobody learns that it was opened.

https://www.rfc-editor.org/rfc/rfc8058 (unsubscribing with one click)
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

if TYPE_CHECKING:
    from homeserver.outbound.mail import Mailer

# Below `/_matrix/`, because reverse proxies forward that path.
UNSUBSCRIBE_PATH = "/_matrix/client/unstable/io.homeserver/pushers/unsubscribe"
MATRIX_TO = "https://matrix.to/#/"


class DigestMessage(msgspec.Struct, frozen=True):
    """A message. `quotes` says that the text is the sender's; otherwise it is what they did."""

    sender: str
    text: str
    quotes: bool
    time: str
    event_id: str


class DigestRoom(msgspec.Struct, frozen=True):
    """A room with the newest of its unread messages; `count` is that of all of them."""

    room_id: str
    title: str
    messages: Sequence[DigestMessage]
    count: int
    is_invite: bool


class Digest(msgspec.Struct, frozen=True):
    """What a mail is about; `omitted_rooms` have unread messages too."""

    user_id: str
    rooms: Sequence[DigestRoom]
    omitted_rooms: int
    count: int


class RenderedMail(msgspec.Struct, frozen=True):
    """A mail in both forms."""

    subject: str
    text: str
    html: str


class DigestMails:
    """A sender of digests. `client_baseurl` is that of the client to which links lead."""

    def __init__(
        self, mailer: "Mailer", server_name: str, public_baseurl: str, client_baseurl: str | None
    ) -> None:
        # Most servers send no mail.
        from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

        self._mailer = mailer
        self._server_name = server_name
        self._public_baseurl = public_baseurl.rstrip("/")
        self._client_baseurl = client_baseurl.rstrip("/") if client_baseurl else None
        self._templates = Environment(
            loader=PackageLoader("homeserver.outbound", "templates/mails"),
            autoescape=select_autoescape(["html"]),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )

    async def send(
        self, address: str, digest: Digest, *, brand: str | None, token: str, upto: int
    ) -> None:
        """Send a mail about everything up to a position. The same position gives the same mail.

        Raises `InvalidParam` and `MailNotSent`.
        """
        link = self.unsubscribe_link(token)
        mail = self.render(digest, brand=brand, unsubscribe_link=link)
        await self._mailer.send(
            address,
            mail.subject,
            mail.text,
            mail.html,
            # A mailbox that gets it twice can tell; nobody else can make another of this name.
            name=sha256(f"{token} {upto}".encode()).hexdigest()[:32],
            headers={
                "List-Unsubscribe": f"<{link}>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            },
        )

    def render(self, digest: Digest, *, brand: str | None, unsubscribe_link: str) -> RenderedMail:
        """The mail."""
        subject = _subject(digest, brand or self._server_name)
        values = {
            "digest": digest,
            "subject": subject,
            "server_name": self._server_name,
            "unsubscribe_link": unsubscribe_link,
            "room_link": self._room_link,
            "message_link": self._message_link,
        }
        text = self._templates.get_template("digest.txt").render(values)
        html = self._templates.get_template("digest.html").render(values)
        return RenderedMail(subject, text, html)

    def unsubscribe_link(self, token: str) -> str:
        """The link by which a user ends the mails."""
        return f"{self._public_baseurl}{UNSUBSCRIBE_PATH}?{urlencode({'token': token})}"

    def _room_link(self, room: DigestRoom) -> str:
        return self._link(room.room_id)

    def _message_link(self, room: DigestRoom, message: DigestMessage) -> str:
        return self._link(room.room_id, message.event_id)

    def _link(self, *ids: str) -> str:
        path = "/".join(quote(each, safe="!$:") for each in ids)
        if self._client_baseurl is None:
            return f"{MATRIX_TO}{path}"
        return f"{self._client_baseurl}/#/room/{path}"


def _subject(digest: Digest, brand: str) -> str:
    first = digest.rooms[0]
    if digest.count == 1 and first.is_invite:
        what = f"{first.messages[0].sender} invites you to {first.title}"
    else:
        what = "1 unread message" if digest.count == 1 else f"{digest.count} unread messages"
        others = len(digest.rooms) + digest.omitted_rooms - 1
        what += f" in {first.title}"
        if others:
            what += f" and {others} other {'room' if others == 1 else 'rooms'}"
    return f"[{brand}] {what}"
