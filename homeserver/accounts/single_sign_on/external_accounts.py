"""The accounts of identities: the linked one, an existing one of that name, or a new one.

An existing account is linked only where the settings allow it, and only if no other identity of the
provider is linked with it: names that differ in case are mapped to the same localpart.

Spec: https://spec.matrix.org/v1.19/client-server-api/#handling-the-callback-from-the-authentication-server
"""

from collections.abc import Sequence

from homeserver.accounts.interactive_auth.third_party_stage import ProvedAddress
from homeserver.accounts.registration.notices_account import USER_TYPE as NOTICES
from homeserver.accounts.registration.registration import NewUser, Registration
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.config.sections.accounts import PolicySettings
from homeserver.config.sections.single_sign_on import IdentityProviderSettings
from homeserver.protocol.errors import (
    Exclusive,
    Forbidden,
    InvalidUsername,
    MatrixError,
    UserInUse,
    UserLocked,
)
from homeserver.protocol.single_sign_on.claims import Identity
from homeserver.protocol.single_sign_on.localparts import map_localpart
from homeserver.protocol.third_party_ids.addresses import EMAIL
from homeserver.storage.accounts.external_ids import (
    ExternalId,
    external_ids_of,
    find_external_id_owner,
    has_external_id,
    insert_external_id,
)
from homeserver.storage.accounts.third_party_ids import find_third_party_id_owner
from homeserver.storage.accounts.users import User, find_user, lock_user
from homeserver.storage.database.database import Connection, Database


class NoSuchAccount(Forbidden):
    """Nobody has an account for this identity, and none may be created."""


class ExternalAccounts:
    """Finds and creates the accounts of identities.

    `policies` are accepted by users who get an account.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        registration: Registration,
        policies: Sequence[PolicySettings],
    ) -> None:
        self._db = db
        self._clock = clock
        self._registration = registration
        self.policies = policies

    async def find(self, provider: IdentityProviderSettings, identity: Identity) -> str | None:
        """The user of an identity; links or creates the account if that needs no decision.

        `None` if the user has to choose a name, or accept policies, for a new account. Raises
        `NoSuchAccount`, `Forbidden` and `UserLocked`.
        """
        user_id = await self._linked(provider, identity)
        if user_id is None and identity.is_mapped and provider.allow_existing_users:
            user_id = await self._link_existing(provider, identity)
        if user_id is not None:
            return user_id
        if not provider.allow_new_users:
            raise NoSuchAccount("You have no account on this server")
        if not identity.is_mapped or self.policies:
            return None
        assert identity.suggestion is not None, "it is mapped"
        try:
            return await self.register(provider, identity, map_localpart(identity.suggestion))
        except (UserInUse, InvalidUsername, Exclusive):
            return None

    async def find_linked(self, provider: str, identity: Identity) -> str | None:
        """The user with whom an identity is linked."""
        user_id: str | None = await self._db.run(find_external_id_owner, provider, identity.subject)
        return user_id

    async def providers_of(self, user_id: str) -> set[str]:
        """The ids of the providers where a user has an identity."""
        return {each.provider for each in await self._db.run(external_ids_of, user_id)}

    async def free_email(self, identity: Identity) -> str | None:
        """The e-mail address of an identity, unless it belongs to an account already."""
        if identity.email is None:
            return None
        owner = await self._db.run(find_third_party_id_owner, EMAIL, identity.email)
        return identity.email if owner is None else None

    async def register(
        self, provider: IdentityProviderSettings, identity: Identity, localpart: str
    ) -> str:
        """Create the account of an identity, which accepts all policies; returns the user id.

        Made twice, it returns the account of the first time. Raises `NoSuchAccount`, `UserInUse`,
        `InvalidUsername`, and `Exclusive` for names of application services.
        """
        if not provider.allow_new_users:
            raise NoSuchAccount("You have no account on this server")
        user_id = await self._linked(provider, identity)
        if user_id is not None:
            return user_id
        await self._registration.check_available(localpart)
        new = NewUser(
            localpart,
            policies={policy.id: policy.version for policy in self.policies} or None,
            addresses=await self._addresses(identity),
            display_name=identity.display_name,
            external_id=(provider.id, identity.subject),
        )
        try:
            user_id, _ = await self._registration.register(new, None)
        except MatrixError:
            # The same identity may have registered in the meantime, as by a second click.
            other = await self._linked(provider, identity)
            if other is None:
                raise
            return other
        return user_id

    async def check_may_log_in(self, user_id: str) -> None:
        """Raise `Forbidden` or `UserLocked` for users who may not log in."""
        user: User | None = await self._db.run(find_user, user_id)
        if user is None or user.is_deactivated:
            raise Forbidden("This account was deactivated")
        if user.is_locked:
            raise UserLocked("This account has been locked")

    async def _linked(self, provider: IdentityProviderSettings, identity: Identity) -> str | None:
        user_id = await self.find_linked(provider.id, identity)
        if user_id is not None:
            await self.check_may_log_in(user_id)
        return user_id

    async def _link_existing(
        self, provider: IdentityProviderSettings, identity: Identity
    ) -> str | None:
        assert identity.suggestion is not None, "it is mapped"
        try:
            user_id = self._registration.user_id_for(map_localpart(identity.suggestion))
        except InvalidUsername:
            return None
        user: User | None = await self._db.run(find_user, user_id)
        if user is None or user.is_guest or user.is_deactivated:
            return None
        if user.appservice is not None or user.user_type == NOTICES:
            return None
        await self.check_may_log_in(user_id)
        new = ExternalId(provider.id, identity.subject, user_id, now_ms(self._clock))
        if await self._db.transaction(_link_first, new):
            return user_id
        # Perhaps the same identity was linked in the meantime.
        return await self._linked(provider, identity)

    async def _addresses(self, identity: Identity) -> list[ProvedAddress]:
        email = await self.free_email(identity)
        return [] if email is None else [ProvedAddress("", EMAIL, email, now_ms(self._clock))]


async def _link_first(db: Connection, new: ExternalId) -> bool:
    """Link an identity, if the user is active and has none at this provider."""
    user = await lock_user(db, new.user_id)
    if user is None or user.is_deactivated:
        return False
    if await has_external_id(db, new.user_id, [new.provider]):
        return False
    return await insert_external_id(db, new)
