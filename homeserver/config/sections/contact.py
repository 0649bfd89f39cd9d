"""Settings of e-mail, and of users' third-party identifiers (e-mail addresses and phone numbers).

Spec: https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from collections.abc import Iterator
from email.utils import parseaddr
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from homeserver.config.fields import Mistake, Section, doc
from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_email


class EmailSettings(Section, frozen=True, kw_only=True):
    """The mail that the server sends. Without an `smtp_host` it sends none, and all that needs mail
    is off: e-mail addresses of accounts, registration with an address, password resets by mail.
    """

    smtp_host: Annotated[
        str | None,
        doc(
            "The mail server that sends the mails of this server.",
            default="none",
            example="smtp.example.org",
        ),
    ] = None
    smtp_port: Annotated[
        int, doc("The port of the mail server; usually 25, 587 or 465.", ge=1, le=65_535)
    ] = 25
    smtp_user: Annotated[str | None, doc("The user name at the mail server.", default="none")] = (
        None
    )
    smtp_password: Annotated[
        str | None, doc("The password at the mail server.", default="none")
    ] = None
    tls: Annotated[
        Literal["opportunistic", "required", "implicit", "off"],
        doc(
            "Encryption: `opportunistic` uses STARTTLS if the mail server offers it, and checks no"
            " certificate; `required` uses STARTTLS and `implicit` (port 465) begins with TLS, and"
            " both check the certificate."
        ),
    ] = "opportunistic"
    sender: Annotated[
        str | None,
        doc(
            "The sender of mails.",
            default="none; required with `smtp_host`",
            example='"Example <noreply@example.org>"',
        ),
    ] = msgspec.field(default=None, name="from")
    timeout: Annotated[
        float,
        doc(
            "The longest time that sending a mail may take; after that it has failed.",
            unit="seconds",
            gt=0,
        ),
    ] = 20.0
    allowed_domains: Annotated[
        tuple[str, ...],
        doc(
            "Allowed domains of the e-mail addresses of accounts. Empty means any.",
            example="[example.org]",
        ),
    ] = ()
    allowed_redirect_prefixes: Annotated[
        tuple[str, ...],
        doc(
            "Prefixes of the web addresses to which a client may have a user redirected after the"
            " user has followed the link in a mail. Empty means no redirects.",
            example="['https://app.element.io/']",
            former_name="next_links",
        ),
    ] = ()

    notifications: Annotated[
        bool,
        doc(
            "Let users have a mail about unread messages sent to their e-mail address, which their"
            " clients can switch on. The mails contain messages that are not encrypted."
        ),
    ] = True
    notification_delay: Annotated[
        float,
        doc(
            "The time after which an unread message is mailed, and for which a room then causes no"
            " further mail; this doubles with each mail, up to a day, until the user reads the"
            " room.",
            unit="seconds",
            ge=0,
            le=86_400,
        ),
    ] = 600.0
    client_baseurl: Annotated[
        str | None,
        doc(
            "The web client to which the links in notifications lead.",
            default="none; they lead to matrix.to, where users choose a client",
            example="https://app.element.io/",
        ),
    ] = None

    @property
    def notifies(self) -> bool:
        """Whether users can have notifications by mail."""
        return self.enabled and self.notifications

    @property
    def enabled(self) -> bool:
        """Whether the server can send mails."""
        return self.smtp_host is not None

    def mistakes(self) -> Iterator[Mistake]:
        if self.smtp_host is None:
            return
        if self.sender is None:
            yield Mistake("email.from is missing", ("from", "smtp_host"))
        elif not _is_email(parseaddr(self.sender)[1]):
            yield Mistake("email.from: not an e-mail address", ("from",))
        if self.client_baseurl is not None and not _is_web_address(self.client_baseurl):
            yield Mistake(
                "email.client_baseurl: not an https:// or http:// address", ("client_baseurl",)
            )
        credentials = ("smtp_user", "smtp_password")
        if (self.smtp_user is None) != (self.smtp_password is None):
            yield Mistake(
                "email needs both a smtp_user and a smtp_password, or neither", credentials
            )
        if self.smtp_user is not None and self.tls not in ("required", "implicit"):
            yield Mistake(
                "email.smtp_password would be sent unencrypted: set email.tls to required"
                " or implicit",
                (*credentials, "tls"),
            )


class ThirdPartyIdSettings(Section, frozen=True, kw_only=True):
    """E-mail addresses and telephone numbers of accounts."""

    enable_changes: Annotated[
        bool,
        doc(
            "Allow users to add and remove their own; otherwise only administrators can.",
            former_name="changes_allowed",
        ),
    ] = True
    identity_servers: Annotated[
        tuple[str, ...],
        doc(
            "Identity servers through which users may publish their identifiers and invite others"
            " by theirs. Empty means any.",
            example="[vector.im]",
        ),
    ] = ()


def _is_email(address: str) -> bool:
    try:
        canonical_email(address)
    except InvalidThirdPartyId:
        return False
    return True


def _is_web_address(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("https", "http") and bool(parts.netloc)
