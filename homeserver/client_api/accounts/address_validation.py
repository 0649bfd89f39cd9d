"""Validating addresses over the API: requests for a token, for each purpose and medium.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3registeremailrequesttoken
"""

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.registration.registration_flow import RegistrationFlow
from homeserver.accounts.third_party_ids.address_validation import AddressValidation, TokenRequest
from homeserver.accounts.third_party_ids.third_party_ids import ThirdPartyIds
from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.third_party_ids.address_validation import ADD, PASSWORD, REGISTER
from homeserver.protocol.third_party_ids.addresses import EMAIL, MSISDN, InvalidThirdPartyId
from homeserver.protocol.third_party_ids.phone_numbers import parse_phone_number
from homeserver.web.routes import Auth, Route

V3 = "/_matrix/client/v3"

SendAttempt = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]


class RequestEmailValidation(msgspec.Struct):
    """`id_server` is ignored, as the server validates addresses itself."""

    client_secret: str
    email: str
    send_attempt: SendAttempt
    next_link: str | None = None


class RequestMsisdnValidation(msgspec.Struct):
    """`id_server` is ignored, as the server validates addresses itself."""

    client_secret: str
    country: str
    phone_number: str
    send_attempt: SendAttempt
    next_link: str | None = None


class AddressValidationApi:
    def __init__(
        self,
        validation: AddressValidation,
        registration_flow: RegistrationFlow,
        ids: ThirdPartyIds,
        password_change: PasswordChange,
    ) -> None:
        self._validation = validation
        self._registration_flow = registration_flow
        self._ids = ids
        self._password_change = password_change

    def routes(self) -> list[Route]:
        handlers: dict[str, Callable[..., Any]] = {
            "register/email": self.request_token_to_register_email,
            "register/msisdn": self.request_token_to_register_msisdn,
            "account/3pid/email": self.request_token_to_3pid_email,
            "account/3pid/msisdn": self.request_token_to_3pid_msisdn,
            "account/password/email": self.request_token_to_reset_password_email,
            "account/password/msisdn": self.request_token_to_reset_password_msisdn,
        }
        return [
            Route("POST", f"{V3}/{path}/requestToken", handler, auth=Auth.NONE, limit="validation")
            for path, handler in handlers.items()
        ]

    async def request_token_to_register_email(self, body: RequestEmailValidation) -> dict[str, str]:
        """Validate an e-mail address for a new account."""
        self._registration_flow.check_open()
        return await self._request_email(REGISTER, body)

    async def request_token_to_register_msisdn(
        self, body: RequestMsisdnValidation
    ) -> dict[str, str]:
        """Validate a phone number for a new account."""
        self._registration_flow.check_open()
        return await self._request_msisdn(REGISTER, body)

    async def request_token_to_3pid_email(self, body: RequestEmailValidation) -> dict[str, str]:
        """Validate an e-mail address to add it to an account."""
        self._ids.check_allowed()
        return await self._request_email(ADD, body)

    async def request_token_to_3pid_msisdn(self, body: RequestMsisdnValidation) -> dict[str, str]:
        """Validate a phone number to add it to an account."""
        self._ids.check_allowed()
        return await self._request_msisdn(ADD, body)

    async def request_token_to_reset_password_email(
        self, body: RequestEmailValidation
    ) -> dict[str, str]:
        """Validate an e-mail address to set a new password."""
        self._password_change.check_allowed()
        return await self._request_email(PASSWORD, body)

    async def request_token_to_reset_password_msisdn(
        self, body: RequestMsisdnValidation
    ) -> dict[str, str]:
        """Validate a phone number to set a new password."""
        self._password_change.check_allowed()
        return await self._request_msisdn(PASSWORD, body)

    async def _request_email(self, purpose: str, body: RequestEmailValidation) -> dict[str, str]:
        request = TokenRequest(body.client_secret, body.send_attempt, body.next_link)
        sid = await self._validation.request_token(purpose, EMAIL, body.email, request)
        return {"sid": sid}

    async def _request_msisdn(self, purpose: str, body: RequestMsisdnValidation) -> dict[str, str]:
        try:
            number = parse_phone_number(body.country, body.phone_number)
        except InvalidThirdPartyId as error:
            raise InvalidParam(str(error)) from None
        request = TokenRequest(body.client_secret, body.send_attempt, body.next_link)
        sid = await self._validation.request_token(purpose, MSISDN, number, request)
        return {"sid": sid}
