"""Whom to turn to about this server, as `/.well-known/matrix/support` tells it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from homeserver.config.fields import Mistake, Section, doc


class Contact(Section, frozen=True, kw_only=True):
    """Someone to turn to about this server."""

    role: Annotated[
        Literal["m.role.admin", "m.role.moderator", "m.role.dpo", "m.role.security"],
        doc("What this person is for."),
    ]
    matrix_id: Annotated[str | None, doc("Matrix user ID.", default="none")] = None
    email_address: Annotated[str | None, doc("E-mail address.", default="none")] = None

    def mistakes(self) -> Iterator[Mistake]:
        if self.matrix_id is None and self.email_address is None:
            yield Mistake(
                "a contact has a matrix_id or an email_address", ("matrix_id", "email_address")
            )


class Support(Section, frozen=True, kw_only=True):
    """What `/.well-known/matrix/support` says; it is not served while both are empty."""

    contacts: Annotated[
        tuple[Contact, ...],
        doc(
            "People to turn to.", example="[{role: m.role.admin, matrix_id: '@admin:example.org'}]"
        ),
    ] = ()
    support_page: Annotated[
        str | None,
        doc("Page with help.", default="none", example="https://example.org/support"),
    ] = None
