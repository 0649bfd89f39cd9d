"""Settings of e-mail, and of the addresses that people have beside their user ID.

Spec: https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from collections.abc import Iterator
from email.utils import parseaddr
from typing import Annotated, Literal

import msgspec

from homeserver.config.fields import Mistake, Section, doc
from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_email


class EmailSettings(Section, frozen=True, kw_only=True):
    """E-mail that the server sends. Without an `smtp_host` it sends none, and offers nothing that
    needs it: addresses of accounts, registration with an address, a new password by mail.
    """

    smtp_host: Annotated[
        str | None,
        doc("The mail server that takes our mails.", default="none", example="smtp.example.org"),
    ] = None
    smtp_port: Annotated[int, doc("Its port; usually 25, 587 or 465.", ge=1, le=65_535)] = 25
    smtp_user: Annotated[str | None, doc("User name to log in there with.", default="none")] = None
    smtp_password: Annotated[
        str | None, doc("The password that belongs to it.", default="none")
    ] = None
    tls: Annotated[
        Literal["opportunistic", "required", "implicit", "off"],
        doc(
            "Encryption: `opportunistic` uses STARTTLS where it is offered and looks at no"
            " certificate; `required` uses STARTTLS and `implicit` (port 465) begins with TLS, and"
            " both check the certificate."
        ),
    ] = "opportunistic"
    sender: Annotated[
        str | None,
        doc(
            "The sender of our mails.",
            default="none; required with `smtp_host`",
            example='"Example <noreply@example.org>"',
        ),
    ] = msgspec.field(default=None, name="from")
    timeout: Annotated[
        float,
        doc(
            "A mail that the mail server has not taken by then was not sent.", unit="seconds", gt=0
        ),
    ] = 20.0
    allowed_domains: Annotated[
        tuple[str, ...],
        doc(
            "Domains of e-mail addresses that accounts may have; any, while this is empty.",
            example="[example.org]",
        ),
    ] = ()
    allowed_redirect_prefixes: Annotated[
        tuple[str, ...],
        doc(
            "Beginnings of web addresses to which a client may have people sent on after they have"
            " followed the link in a mail; they stay on our page where this lists none.",
            example="['https://app.element.io/']",
            former_name="next_links",
        ),
    ] = ()

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
        credentials = ("smtp_user", "smtp_password")
        if (self.smtp_user is None) != (self.smtp_password is None):
            yield Mistake(
                "email needs both a smtp_user and a smtp_password, or neither", credentials
            )
        if self.smtp_user is not None and self.tls not in ("required", "implicit"):
            yield Mistake(
                "email.smtp_password would be sent for anybody to read: set email.tls to required"
                " or implicit",
                (*credentials, "tls"),
            )


class ThirdPartyIdSettings(Section, frozen=True, kw_only=True):
    """E-mail addresses and telephone numbers of accounts."""

    enable_changes: Annotated[
        bool,
        doc(
            "Let users add and remove their own; else only administrators do.",
            former_name="changes_allowed",
        ),
    ] = True
    identity_servers: Annotated[
        tuple[str, ...],
        doc(
            "Identity servers at which users may publish theirs, and invite those of others,"
            " through us; any, while this is empty.",
            example="[vector.im]",
        ),
    ] = ()


def _is_email(address: str) -> bool:
    try:
        canonical_email(address)
    except InvalidThirdPartyId:
        return False
    return True
