"""Registration over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration
"""

from typing import Any, Literal

import msgspec

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.credentials.registration_tokens import RegistrationTokens
from homeserver.accounts.login.login import APPSERVICE
from homeserver.accounts.registration.registration_flow import RegistrationFlow, RegistrationRequest
from homeserver.client_api.accounts.sessions import session_body
from homeserver.web.addresses import network_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

CLIENT = "/_matrix/client/v3"


class RegisterQuery(msgspec.Struct):
    kind: Literal["user", "guest"] = "user"


class AvailabilityQuery(msgspec.Struct):
    username: str


class ValidityQuery(msgspec.Struct):
    token: str


class RegistrationApi:
    def __init__(
        self,
        registration_flow: RegistrationFlow,
        tokens: RegistrationTokens,
        appservices: Appservices,
    ) -> None:
        self._registration_flow = registration_flow
        self._tokens = tokens
        self._appservices = appservices

    def routes(self) -> list[Route]:
        validity = "/_matrix/client/v1/register/m.login.registration_token/validity"
        return [
            Route(
                "POST", f"{CLIENT}/register", self.register, auth=Auth.NONE, limit="availability"
            ),
            Route(
                "GET",
                f"{CLIENT}/register/available",
                self.check_username_availability,
                auth=Auth.NONE,
                limit="availability",
            ),
            Route(
                "GET",
                validity,
                self.registration_token_validity,
                auth=Auth.NONE,
                limit="availability",
            ),
        ]

    async def register(
        self, query: RegisterQuery, body: RegistrationRequest, request: Request
    ) -> dict[str, Any]:
        """Create an account, and log in to it unless the client inhibits that."""
        address = network_of(request.address)
        if query.kind == "guest":
            name = body.initial_device_display_name
            return session_body(await self._registration_flow.register_guest(name, address))
        if body.type == APPSERVICE:
            service = self._appservices.authenticate(request.token())
            user_id, session = await self._registration_flow.register_for_appservice(service, body)
        else:
            user_id, session = await self._registration_flow.register(body, address)
        return {"user_id": user_id} if session is None else session_body(session)

    async def check_username_availability(self, query: AvailabilityQuery) -> dict[str, bool]:
        """Whether a name could be registered."""
        await self._registration_flow.check_available(query.username)
        return {"available": True}

    async def registration_token_validity(self, query: ValidityQuery) -> dict[str, bool]:
        """Whether a registration token would be accepted."""
        self._registration_flow.check_open()
        return {"valid": await self._tokens.is_valid(query.token)}
