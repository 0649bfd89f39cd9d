"""Values of address validation, by which users prove that an e-mail address or number is theirs.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations
"""

from dataclasses import dataclass

import msgspec

# The purposes that a validation session is begun for.
REGISTER = "register"
ADD = "add"
PASSWORD = "password"


class ThreepidCredentials(msgspec.Struct):
    """How a client names a validation session.

    An identity server is not asked, even if one is named.
    """

    sid: str
    client_secret: str


@dataclass(frozen=True, slots=True)
class ValidationMessage:
    """What is to be sent to an address.

    Without a `token` it says why there is none: the address has an account already, or, for a new
    password, has none.
    """

    purpose: str
    address: str
    sid: str
    token: str | None
