"""Mails by which users validate their e-mail address, or learn why they cannot.

The templates are in `templates/mails/`, two for each mail: `<name>.txt`, whose first line is the
subject, and `<name>.html`.
"""

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from homeserver.protocol.third_party_ids.address_validation import (
    ADD,
    PASSWORD,
    REGISTER,
    ValidationMessage,
)

if TYPE_CHECKING:
    from homeserver.outbound.mail import Mailer

# Below `/_matrix/`, because reverse proxies forward that path.
LINK_PATH = "/_matrix/client/unstable/io.homeserver/email/validate"

NAMES = {REGISTER: "register", ADD: "add", PASSWORD: "password"}
NAMES_WITHOUT_TOKEN = {REGISTER: "in_use", ADD: "in_use", PASSWORD: "no_account"}


class ValidationMails:
    """A sender of validation messages by e-mail. `public_baseurl` is the base of the links."""

    def __init__(self, mailer: "Mailer", server_name: str, public_baseurl: str) -> None:
        # Most servers send no mail.
        from jinja2 import Environment, PackageLoader, select_autoescape

        self._mailer = mailer
        self._server_name = server_name
        self._public_baseurl = public_baseurl.rstrip("/")
        self._templates = Environment(
            loader=PackageLoader("homeserver.outbound", "templates/mails"),
            autoescape=select_autoescape(["html"]),
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def deliver(self, message: ValidationMessage) -> None:
        """Send the mail. Raises `InvalidParam` and `MailNotSent`."""
        names = NAMES if message.token else NAMES_WITHOUT_TOKEN
        name = names[message.purpose]
        values = {
            "address": message.address,
            "server_name": self._server_name,
            "public_baseurl": self._public_baseurl,
            "link": self._link(message),
        }
        text = self._templates.get_template(f"{name}.txt").render(values)
        html = self._templates.get_template(f"{name}.html").render(values)
        subject, _, body = text.partition("\n")
        await self._mailer.send(message.address, subject, body.lstrip("\n"), html)

    def _link(self, message: ValidationMessage) -> str | None:
        if message.token is None:
            return None
        query = urlencode({"sid": message.sid, "token": message.token})
        return f"{self._public_baseurl}{LINK_PATH}?{query}"
