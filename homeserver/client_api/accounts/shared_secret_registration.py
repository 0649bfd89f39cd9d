"""Registration by a shared secret over the API, in the form that existing tools use.

Not part of the specification: the path and the form of the requests are those of Synapse's
`register_new_matrix_user`.
"""

from typing import Any

from homeserver.accounts.credentials.shared_secret import SharedSecret, SharedSecretRequest
from homeserver.accounts.registration.registration import NewUser, Registration
from homeserver.accounts.sessions.login_sessions import DeviceRequest
from homeserver.accounts.user_data.profiles import DISPLAYNAME, Profiles
from homeserver.client_api.accounts.sessions import session_body
from homeserver.web.routes import Auth, Route

PATH = "/_synapse/admin/v1/register"


class SharedSecretRegistrationApi:
    def __init__(
        self,
        secret: SharedSecret,
        registration: Registration,
        profiles: Profiles,
        server_name: str,
    ) -> None:
        self._secret = secret
        self._registration = registration
        self._profiles = profiles
        self._server_name = server_name

    def routes(self) -> list[Route]:
        return [
            Route("GET", PATH, self.get_nonce, auth=Auth.NONE),
            Route("POST", PATH, self.register, auth=Auth.NONE, limit="availability"),
        ]

    def get_nonce(self) -> dict[str, str]:
        """A nonce to prove the secret with."""
        return {"nonce": self._secret.new_nonce()}

    async def register(self, body: SharedSecretRequest) -> dict[str, Any]:
        """Create an account for a request with a proof of the secret, and log in to it."""
        self._secret.check(body)
        self._registration.check_not_reserved(self._registration.user_id_for(body.username))
        new = NewUser(body.username, body.password, is_admin=body.admin, user_type=body.user_type)
        _, session = await self._registration.register(new, DeviceRequest())
        assert session is not None
        if body.displayname is not None:
            await self._profiles.set_field(session.user_id, DISPLAYNAME, body.displayname)
        return session_body(session) | {"home_server": self._server_name}
