"""The stages of user-interactive authentication that prove an e-mail address or phone number.

Spec: https://spec.matrix.org/v1.19/client-server-api/#email-based-identity--homeserver
"""

from typing import Any

import msgspec

from homeserver.accounts.interactive_auth.user_interactive_auth import StageFailed
from homeserver.accounts.sessions.secret_tokens import new_token
from homeserver.accounts.third_party_ids.address_validation import AddressValidation, TokenRequest
from homeserver.protocol.errors import (
    BadJson,
    Forbidden,
    ThreepidAuthFailed,
    ThreepidInUse,
    ThreepidNotFound,
)
from homeserver.protocol.third_party_ids.address_validation import (
    PASSWORD,
    REGISTER,
    ThreepidCredentials,
)
from homeserver.protocol.third_party_ids.addresses import EMAIL, MSISDN
from homeserver.storage.accounts.third_party_ids import find_third_party_id_owner
from homeserver.storage.database.database import Database

EMAIL_IDENTITY = "m.login.email.identity"
MSISDN_IDENTITY = "m.login.msisdn"
STAGES = {EMAIL: EMAIL_IDENTITY, MSISDN: MSISDN_IDENTITY}

# The purpose of a proof, by the operation that requires it.
PURPOSES = {"register": REGISTER, "changePassword": PASSWORD}


class NotProved(ThreepidAuthFailed, StageFailed):
    """The link in the mail was not opened yet; the client may try again."""


class ProvedAddress(msgspec.Struct):
    """The result of the stage. `user_id` has the address, unless it is for a new account."""

    sid: str
    medium: str
    address: str
    validated_ms: int
    user_id: str | None = None


class ThirdPartyIdStage:
    """A validated address. Proves it, and its user, as a `ProvedAddress`."""

    def __init__(self, medium: str, validation: AddressValidation, db: Database) -> None:
        self.type = STAGES[medium]
        self._medium = medium
        self._validation = validation
        self._db = db

    def params(self) -> None:
        return None

    async def begin(self, address: str, operation: str) -> ThreepidCredentials:
        """Send a token for a client that does not know this stage.

        Returns the credentials that complete it. Raises `Forbidden`, and what
        `AddressValidation.request_token` does.
        """
        request = TokenRequest(client_secret=new_token(), send_attempt=1)
        sid = await self._validation.request_token(
            _purpose_of(operation), self._medium, address, request
        )
        return ThreepidCredentials(sid, request.client_secret)

    async def check(self, auth: dict[str, Any], user_id: str | None, operation: str) -> object:
        purpose = _purpose_of(operation)
        try:
            credentials = msgspec.convert(auth.get("threepid_creds"), ThreepidCredentials)
        except msgspec.ValidationError as error:
            raise BadJson(f"auth: threepid_creds: {error}") from None
        try:
            found = await self._validation.find_validated(purpose, self._medium, credentials)
        except ThreepidAuthFailed as error:
            raise NotProved(str(error)) from None
        owner = await self._db.run(find_third_party_id_owner, self._medium, found.address)
        if purpose == REGISTER and owner is not None:
            raise ThreepidInUse("The address belongs to an account already")
        if purpose == PASSWORD:
            if owner is None:
                raise ThreepidNotFound("No account here has this address")
            if user_id is not None and owner != user_id:
                raise Forbidden("The address is that of another user")
        assert found.validated_ms is not None, "`find_validated` finds no other"
        proved = ProvedAddress(found.sid, self._medium, found.address, found.validated_ms, owner)
        return msgspec.to_builtins(proved)


def proved_addresses(proofs: Any) -> list[ProvedAddress]:
    """The addresses, of all proofs, that the stages of this module have proved."""
    return [
        msgspec.convert(proofs[type_], ProvedAddress)
        for type_ in STAGES.values()
        if type_ in proofs
    ]


def _purpose_of(operation: str) -> str:
    purpose = PURPOSES.get(operation)
    if purpose is None:
        raise Forbidden("This cannot be confirmed by an address")
    return purpose
