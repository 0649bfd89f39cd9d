"""Registration: the creation of accounts, for all kinds of callers.

A user id is lower case, of the narrow grammar, and permanently assigned. A client that requests no
name gets a number; so do guests.

Spec: https://spec.matrix.org/v1.19/client-server-api/#legacy-account-registration
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.interactive_auth.third_party_stage import ProvedAddress
from homeserver.accounts.registration.first_profile import name_by_localpart, set_first_name
from homeserver.accounts.sessions.access_tokens import AccessTokens
from homeserver.accounts.sessions.login_sessions import DeviceRequest, LoginSession, LoginSessions
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import (
    Exclusive,
    Forbidden,
    InvalidUsername,
    MatrixError,
    ThreepidInUse,
    UserInUse,
)
from homeserver.protocol.identifiers import (
    InvalidIdentifier,
    check_appservice_localpart,
    check_localpart,
)
from homeserver.storage.accounts.accepted_policies import insert_accepted_policies
from homeserver.storage.accounts.external_ids import ExternalId, insert_external_id
from homeserver.storage.accounts.registration_tokens import use_registration_token
from homeserver.storage.accounts.third_party_ids import ThirdPartyId, insert_third_party_id
from homeserver.storage.accounts.users import (
    User,
    find_user,
    insert_user,
    next_generated_localpart,
    upgrade_guest,
)
from homeserver.storage.accounts.validation_sessions import delete_validation_session
from homeserver.storage.database.database import Connection, Database


class NewUser(msgspec.Struct, frozen=True):
    """The initial data of an account. Without a `localpart` it gets a number for a name.

    `token` is a registration token to count, `policies` are accepted ones, id to version,
    `addresses` are validated ones. `external_id` is the identity with which the user signs in, as
    the id of its provider and the subject.
    """

    localpart: str | None = None
    password: str | None = None
    is_admin: bool = False
    user_type: str | None = None
    appservice: str | None = None
    token: str | None = None
    policies: Mapping[str, str] | None = None
    addresses: Sequence[ProvedAddress] = ()
    display_name: str | None = None
    external_id: tuple[str, str] | None = None


class IdentityInUse(MatrixError):
    """The identity is linked with another account."""

    errcode, status = "M_UNKNOWN", 409


def _nothing_is_reserved(_user_id: str) -> bool:
    return False


class Registration:
    """Creates accounts. The callers decide who may have one.

    With `localpart_as_display_name` all but guests begin with that name. `is_reserved(user_id)`
    says whether a name is exclusive to an application service.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        server_name: str,
        passwords: Passwords,
        sessions: LoginSessions,
        access_tokens: AccessTokens,
        *,
        localpart_as_display_name: bool,
        is_reserved: Callable[[str], bool] = _nothing_is_reserved,
    ) -> None:
        self._is_reserved = is_reserved
        self._db = db
        self._clock = clock
        self._server_name = server_name
        self._passwords = passwords
        self._sessions = sessions
        self._access_tokens = access_tokens
        self._localpart_as_display_name = localpart_as_display_name

    async def check_available(self, localpart: str) -> str:
        """The user id for a name that is free.

        Raises `InvalidUsername`, `UserInUse`, and `Exclusive` for names of application services.
        """
        user_id = self.user_id_for(localpart)
        self.check_not_reserved(user_id)
        if await self._db.run(find_user, user_id) is not None:
            raise UserInUse("This user ID is taken")
        return user_id

    def check_not_reserved(self, user_id: str) -> None:
        """Raise `Exclusive` for a name of an application service."""
        if self._is_reserved(user_id):
            raise Exclusive("This name is reserved for an application service")

    def appservice_user_id_for(self, localpart: str) -> str:
        """The user id for a name that an application service chooses. Raises `InvalidUsername`."""
        try:
            check_appservice_localpart(localpart, self._server_name)
        except InvalidIdentifier as error:
            raise InvalidUsername(str(error)) from None
        return f"@{localpart}:{self._server_name}"

    def user_id_for(self, localpart: str) -> str:
        """The user id for a name, free or not. Raises `InvalidUsername`."""
        localpart = localpart.lower()
        try:
            check_localpart(localpart, self._server_name)
        except InvalidIdentifier as error:
            raise InvalidUsername(str(error)) from None
        return f"@{localpart}:{self._server_name}"

    async def register(
        self, new: NewUser, device: DeviceRequest | None
    ) -> tuple[str, LoginSession | None]:
        """Create an account, and log it in unless `device` is `None`; returns the user id.

        Raises `InvalidUsername`, `UserInUse`, `InvalidParam`, `ThreepidInUse`, `IdentityInUse`, and
        `Forbidden` for a registration token that has been used up meanwhile.
        """
        if device is not None:
            device.check()
        password_hash = await self._hash(new.password)
        id_for = self.user_id_for if new.appservice is None else self.appservice_user_id_for
        user = User(
            user_id="" if new.localpart is None else id_for(new.localpart),
            created_ms=now_ms(self._clock),
            password_hash=password_hash,
            is_admin=new.is_admin,
            user_type=new.user_type,
            appservice=new.appservice,
        )
        return await self._db.transaction(self._register, user, new, device)

    async def register_guest(self, display_name: str | None) -> LoginSession:
        """Create a guest account, and log it in to a device with this display name."""
        user = User(user_id="", created_ms=now_ms(self._clock), is_guest=True)
        device = DeviceRequest(display_name=display_name)
        device.check()
        _, session = await self._db.transaction(self._register, user, NewUser(), device)
        assert session is not None
        return session

    async def upgrade_guest(
        self,
        localpart: str | None,
        guest_token: str,
        password: str | None,
        addresses: Sequence[ProvedAddress] = (),
    ) -> str:
        """Turn a guest into a full user, who keeps rooms and devices; returns the user id.

        Raises `Forbidden` unless the token is that of the guest of this name, and `ThreepidInUse`.
        """
        caller = await self._access_tokens.get_caller(guest_token)
        if localpart is None or caller.user_id != self.user_id_for(localpart):
            raise Forbidden("The guest's own name has to be given as the username")
        password_hash = await self._hash(password)
        await self._db.transaction(self._upgrade, caller.user_id, password_hash, addresses)
        self._access_tokens.forget_user(caller.user_id)
        return caller.user_id

    async def _hash(self, password: str | None) -> str | None:
        if password is None:
            return None
        return await self._passwords.hash(password)

    async def _register(
        self, db: Connection, user: User, new: NewUser, device: DeviceRequest | None
    ) -> tuple[str, LoginSession | None]:
        if user.user_id:
            if not await insert_user(db, user):
                raise UserInUse("This user ID is taken")
        else:
            user = await self._insert_numbered(db, user)
        if new.display_name is not None:
            await set_first_name(db, user.user_id, new.display_name)
        elif not user.is_guest and self._localpart_as_display_name:
            await name_by_localpart(db, user.user_id)
        now = now_ms(self._clock)
        if new.external_id is not None:
            linked = ExternalId(*new.external_id, user.user_id, now)
            if not await insert_external_id(db, linked):
                raise IdentityInUse("This identity is linked with another account")
        if new.token is not None and not await use_registration_token(db, new.token, now):
            raise Forbidden("The registration token is no longer valid")
        if new.policies:
            await insert_accepted_policies(db, user.user_id, new.policies, now)
        await self._add_addresses(db, user.user_id, new.addresses)
        if device is None:
            return user.user_id, None
        return user.user_id, await self._sessions.open_within(db, user.user_id, device)

    async def _upgrade(
        self,
        db: Connection,
        user_id: str,
        password_hash: str | None,
        addresses: Sequence[ProvedAddress],
    ) -> None:
        if not await upgrade_guest(db, user_id, password_hash):
            raise Forbidden("The access token is not that of a guest")
        await self._add_addresses(db, user_id, addresses)

    async def _add_addresses(
        self, db: Connection, user_id: str, addresses: Sequence[ProvedAddress]
    ) -> None:
        now = now_ms(self._clock)
        for one in addresses:
            added = ThirdPartyId(one.medium, one.address, user_id, one.validated_ms, now)
            if not await insert_third_party_id(db, added):
                raise ThreepidInUse("The address belongs to an account already")
            await delete_validation_session(db, one.sid)

    async def _insert_numbered(self, db: Connection, user: User) -> User:
        """Insert a user with a number for a name, skipping numbers that are taken as names."""
        while True:
            number = await next_generated_localpart(db)
            user = replace(user, user_id=f"@{number}:{self._server_name}")
            if not self._is_reserved(user.user_id) and await insert_user(db, user):
                return user
