"""Contacts for this server, as published in `/.well-known/matrix/support`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from homeserver.config.fields import Mistake, Section, doc


class Contact(Section, frozen=True, kw_only=True):
    """A contact for this server."""

    role: Annotated[
        Literal["m.role.admin", "m.role.moderator", "m.role.dpo", "m.role.security"],
        doc("The role of this contact."),
    ]
    matrix_id: Annotated[str | None, doc("Matrix user ID.", default="none")] = None
    email_address: Annotated[str | None, doc("E-mail address.", default="none")] = None

    def mistakes(self) -> Iterator[Mistake]:
        if self.matrix_id is None and self.email_address is None:
            yield Mistake(
                "a contact has a matrix_id or an email_address", ("matrix_id", "email_address")
            )


class Support(Section, frozen=True, kw_only=True):
    """The content of `/.well-known/matrix/support`, which is not served while both are empty."""

    contacts: Annotated[
        tuple[Contact, ...],
        doc("The contacts.", example="[{role: m.role.admin, matrix_id: '@admin:example.org'}]"),
    ] = ()
    support_page: Annotated[
        str | None,
        doc("Page with help.", default="none", example="https://example.org/support"),
    ] = None
