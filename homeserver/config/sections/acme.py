"""Settings of ACME, by which the server obtains and renews its certificate.

Spec: https://www.rfc-editor.org/rfc/rfc8555
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from homeserver.config.fields import Mistake, Section, doc
from homeserver.config.sections.listeners import Listener

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
MAX_NAMES = 100
_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_NUMBERS = re.compile(r"(.*\.)?[0-9]+")
_EMAIL = re.compile(r"[!-~]+@[!-~]+")


class ExternalAccount(Section, frozen=True, kw_only=True):
    """An account that the authority has made by other means."""

    key_id: Annotated[str, doc("Its id, from the authority.", min_length=1)]
    hmac_key: Annotated[
        str, doc("Its key in base64url, from the authority.", pattern="^[A-Za-z0-9_-]+=*$")
    ]


class AcmeSettings(Section, frozen=True, kw_only=True):
    """A certificate that the server obtains and renews by itself, for the listeners with `tls:
    {acme: true}`. The authority checks the names at port 80 (`resources: [acme]`).
    """

    agree_to_terms: Annotated[
        bool,
        doc(
            "You agree to the terms of service of the certificate authority, which its directory"
            " links to. It issues no certificate otherwise."
        ),
    ] = False
    email: Annotated[
        str | None,
        doc(
            "Address at which the authority reaches you.",
            default="none",
            example="admin@example.org",
        ),
    ] = None
    names: Annotated[
        tuple[str, ...],
        doc(
            "Host names of the certificate, all of which lead to this server.",
            default="`server_name`, if it is a host name, and the host of `public_baseurl`",
            example="[example.org, matrix.example.org]",
        ),
    ] = ()
    directory: Annotated[
        str,
        doc("Directory of the authority's ACME server; Let's Encrypt by default."),
    ] = LETS_ENCRYPT
    ca_file: Annotated[
        Path | None,
        doc(
            "PEM file with the authorities that sign the certificate of the ACME server itself.",
            default="those that browsers trust",
            example="/etc/homeserver/ca.pem",
        ),
    ] = None
    external_account: Annotated[
        ExternalAccount | None,
        doc(
            "For authorities that bind an account to one that they know already.",
            default="none",
            example="{key_id: abc, hmac_key: c2VjcmV0}",
        ),
    ] = None

    @property
    def enabled(self) -> bool:
        """Whether the server obtains a certificate, if the settings have no mistakes."""
        return self.agree_to_terms

    def mistakes(self) -> Iterator[Mistake]:
        parts = urlsplit(self.directory)
        if parts.scheme != "https" or not parts.hostname:
            yield Mistake(
                f"directory: {self.directory!r} is not an https:// address", ("directory",)
            )
        if self.email is not None and _EMAIL.fullmatch(self.email) is None:
            yield Mistake("email: not an e-mail address", ("email",))
        if len(self.names) > MAX_NAMES:
            yield Mistake(f"names: at most {MAX_NAMES}", ("names",))
        for name in self.names:
            if problem := problem_of_name(name):
                yield Mistake(f"names: {name!r} {problem}", ("names",))


def problem_of_name(name: str) -> str | None:
    """Why a certificate cannot be obtained for a name; `None` if it can."""
    name = name.lower()
    if name.startswith("*."):
        return "is a wildcard, for which authorities want a proof by DNS"
    if not name.isascii():
        try:
            ascii_form = name.encode("idna").decode()
        except UnicodeError:
            return "is not a host name"
        return f"has to be written as {ascii_form!r}"
    if _NUMBERS.fullmatch(name) or ":" in name or _HOST_NAME.fullmatch(name) is None:
        return "is not a host name"
    return None


def names_of_certificate(
    acme: AcmeSettings, server_name: str, public_baseurl: str | None
) -> tuple[str, ...]:
    """The names that the certificate gets, in lower case."""
    if acme.names:
        return tuple(dict.fromkeys(name.lower() for name in acme.names))
    host = urlsplit(public_baseurl or "").hostname or ""
    found = (server_name.lower(), host)
    return tuple(dict.fromkeys(name for name in found if name and not problem_of_name(name)))


def mistakes_of_acme(
    acme: AcmeSettings, listeners: tuple[Listener, ...], names: tuple[str, ...]
) -> Iterator[Mistake]:
    """What does not fit between the section and the listeners."""
    is_used = any(each.tls is not None and each.tls.acme for each in listeners)
    is_proved = any("acme" in each.resources for each in listeners)
    places = ("acme", "listeners")
    if is_used and not acme.agree_to_terms:
        yield Mistake(
            "acme.agree_to_terms: set it to true if you agree to the terms of service of the"
            f" authority, to which {acme.directory} links; it issues no certificate otherwise",
            places,
        )
    if is_used and not is_proved:
        yield Mistake(
            "listeners: tls: {acme: true} needs a listener for port 80 with resources: [acme]",
            places,
        )
    if is_used and not names:
        yield Mistake(
            "acme.names: neither server_name nor public_baseurl has a host name that a certificate"
            " can be obtained for",
            (*places, "server_name", "public_baseurl"),
        )
    if not is_used and (acme.agree_to_terms or is_proved):
        yield Mistake(
            "acme: no listener uses the certificate; set tls: {acme: true} in one", places
        )
