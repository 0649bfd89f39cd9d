"""The registration of people, guests and application services over the API.

Errors that can be found beforehand are raised before authentication is requested. A session of
user-interactive authentication remembers the user that it created, so that a client which lost the
response can repeat the request and is logged in, instead of getting the error that the name is
taken.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register
"""

from collections.abc import Callable

from homeserver.accounts.appservices.appservices import as_party
from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.interactive_auth.authentication_stages import (
    DUMMY,
    RECAPTCHA,
    REGISTRATION_TOKEN,
    TERMS,
)
from homeserver.accounts.interactive_auth.third_party_stage import (
    EMAIL_IDENTITY,
    STAGES,
    proved_addresses,
)
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    Attempt,
    Confirmable,
    UserInteractiveAuth,
)
from homeserver.accounts.registration.registration import NewUser, Registration
from homeserver.accounts.sessions.login_sessions import DeviceRequest, LoginSession, LoginSessions
from homeserver.accounts.sessions.requester import Requester
from homeserver.config.sections.accounts import RegistrationSettings
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import Exclusive, Forbidden, MissingParam


class RegistrationRequest(Confirmable):
    """The body of a registration request."""

    type: str | None = None
    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False
    guest_access_token: str | None = None

    @property
    def device(self) -> DeviceRequest | None:
        """The device to log in, if any."""
        if self.inhibit_login:
            return None
        name = self.initial_device_display_name
        return DeviceRequest(self.device_id, name, self.refresh_token)


class RegistrationFlow:
    """Registers users where the settings allow it.

    `count_account` counts an account that is about to be created, for the address of a client or
    for an application service, and raises `LimitExceeded`. Clients make several requests for each,
    and some just to find out what is asked for; these are counted elsewhere.
    """

    def __init__(
        self,
        settings: RegistrationSettings,
        uia: UserInteractiveAuth,
        registration: Registration,
        sessions: LoginSessions,
        passwords: Passwords,
        count_account: Callable[[Requester | str], None],
    ) -> None:
        self._settings = settings
        self._uia = uia
        self._registration = registration
        self._sessions = sessions
        self._passwords = passwords
        self._count_account = count_account
        stages = [
            *([RECAPTCHA] if settings.recaptcha_required else []),
            *([REGISTRATION_TOKEN] if settings.token_required else []),
            *([TERMS] if settings.terms else []),
        ]
        self._flows = [[EMAIL_IDENTITY, *stages]]
        if not settings.email_required:
            # The address stage comes first: the other stages alone are a complete flow already.
            offered = [[type_, *stages] for type_ in STAGES.values() if type_ in uia.stages]
            self._flows = [stages or [DUMMY], *offered]

    def check_open(self) -> None:
        """Raise `Forbidden` where registration is disabled."""
        if not self._settings.enabled:
            raise Forbidden("Registration is disabled on this server")

    async def check_available(self, username: str) -> None:
        """Raise `Forbidden`, `InvalidUsername`, `UserInUse` or `Exclusive`."""
        self.check_open()
        await self._registration.check_available(username)

    async def register(
        self, body: RegistrationRequest, address: str = ""
    ) -> tuple[str, LoginSession | None]:
        """Create a full account; returns the user id, and the session unless `inhibit_login`.

        `address` is that of the client. Raises `AuthenticationNeeded` first, and before it any
        error in the request; then `LimitExceeded`, after which the request can be repeated.
        """
        self.check_open()
        attempt = await self._uia.begin("register", None, body, address)
        if attempt.outcome is not None:
            return await self._log_in(attempt.outcome, attempt.body)
        await self._check(attempt.body)
        await attempt.confirm(self._flows)
        self._count_account(address)
        user_id, session = await self._register(attempt)
        await attempt.remember(user_id)
        return user_id, session

    async def register_guest(
        self, device_display_name: str | None, address: str = ""
    ) -> LoginSession:
        """Create a guest account for a client at an address.

        Raises `Forbidden` where the server allows no guests, and `LimitExceeded`.
        """
        if not self._settings.guests:
            raise Forbidden("Guests are not allowed on this server")
        self._count_account(address)
        return await self._registration.register_guest(device_display_name)

    async def register_for_appservice(
        self, service: Appservice, body: RegistrationRequest
    ) -> tuple[str, LoginSession | None]:
        """Create an account without a password, for an application service.

        Raises `MissingParam`, `InvalidUsername`, `UserInUse`, `LimitExceeded`, and `Exclusive` for
        names outside of the namespaces of the service.
        """
        if body.username is None:
            raise MissingParam("The username is missing")
        if not service.covers_user(self._registration.appservice_user_id_for(body.username)):
            raise Exclusive("The name does not belong to this application service")
        self._count_account(as_party(service))
        new = NewUser(body.username, appservice=service.id)
        return await self._registration.register(new, body.device)

    async def _check(self, body: RegistrationRequest) -> None:
        if body.device is not None:
            body.device.check()
        if body.password is not None:
            self._passwords.check_strength(body.password)
        if body.guest_access_token is None and body.username is not None:
            await self._registration.check_available(body.username)

    async def _register(
        self, attempt: Attempt[RegistrationRequest]
    ) -> tuple[str, LoginSession | None]:
        body = attempt.body
        addresses = proved_addresses(attempt.proofs)
        if body.guest_access_token is not None:
            user_id = await self._registration.upgrade_guest(
                body.username, body.guest_access_token, body.password, addresses
            )
            return await self._log_in(user_id, body)
        new = NewUser(
            body.username,
            body.password,
            token=attempt.proofs.get(REGISTRATION_TOKEN),
            policies=attempt.proofs.get(TERMS),
            addresses=addresses,
        )
        return await self._registration.register(new, body.device)

    async def _log_in(
        self, user_id: str, body: RegistrationRequest
    ) -> tuple[str, LoginSession | None]:
        if body.device is None:
            return user_id, None
        return user_id, await self._sessions.open(user_id, body.device)
