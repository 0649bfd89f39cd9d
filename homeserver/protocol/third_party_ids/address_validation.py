"""The values of address validation, by which users prove that an e-mail address or number is
theirs.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations
"""

import msgspec

# The purposes of a validation session.
REGISTER = "register"
ADD = "add"
PASSWORD = "password"


class ThreepidCredentials(msgspec.Struct):
    """A client's reference to a validation session.

    `id_server` is ignored: no identity server is asked.
    """

    sid: str
    client_secret: str


class ValidationMessage(msgspec.Struct, frozen=True):
    """A message to be sent to an address.

    Without a `token` it explains that the address already has an account or, for a new password,
    has none.
    """

    purpose: str
    address: str
    sid: str
    token: str | None
