"""Address validation: the proof that an e-mail address or a phone number is the user's.

A client requests a token, which is sent to the address; the user submits it, by a link in a mail;
and the client, which alone knows the `client_secret`, uses the session for the purpose that it was
begun for, and for no other. The link has no secret of the client: a reader of the mail can consent
to the operation, but cannot perform it.

Whether an address has an account is private. So all requests for a token get the same response, and
the mail says what the response does not: that the address has an account already, or that it has
none.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations
"""

from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.config.sections.contact import EmailSettings
from homeserver.protocol.errors import (
    InvalidParam,
    ThreepidAuthFailed,
    ThreepidDenied,
    ThreepidMediumNotSupported,
)
from homeserver.protocol.third_party_ids.address_validation import (
    ADD,
    PASSWORD,
    ThreepidCredentials,
    ValidationMessage,
)
from homeserver.protocol.third_party_ids.addresses import (
    EMAIL,
    InvalidThirdPartyId,
    canonical_address,
    is_opaque_id,
)
from homeserver.storage.accounts.third_party_ids import find_third_party_id_owner
from homeserver.storage.accounts.validation_sessions import (
    ValidationSession,
    begin_validation,
    delete_validation_session,
    find_validation_session,
    set_validated,
    undo_send_attempt,
)
from homeserver.storage.database.database import Database

LIFETIME_MS = 24 * 60 * 60 * 1000  # from the last change, as the specification requires
MAX_LINK = 2_048


class TokenRequest(msgspec.Struct, frozen=True):
    """The parameters of a request for a token, except the address."""

    client_secret: str
    send_attempt: int
    next_link: str | None = None


class ValidationSender(Protocol):
    """Sends messages to the addresses of one medium."""

    async def deliver(self, message: ValidationMessage) -> None:
        """Send a message. Raises `MailNotSent`, or `InvalidParam` for an unreachable address."""


class AddressValidation:
    """Sends tokens and stores the sessions.

    `senders` are those of the supported media; there may be none. `check_limit(address)` counts a
    message to an address; it raises `LimitExceeded`.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: EmailSettings,
        senders: Mapping[str, ValidationSender],
        check_limit: Callable[[str], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._senders = senders
        self._check_limit = check_limit

    def supports(self, medium: str) -> bool:
        """Whether the server can validate addresses of a medium."""
        return medium in self._senders

    def check_supported(self, purpose: str, medium: str) -> None:
        """Raise `ThreepidMediumNotSupported` or `ThreepidDenied`, as the specification requires."""
        if self.supports(medium):
            return
        text = "This server validates no addresses of this kind"
        if purpose == ADD:
            raise ThreepidMediumNotSupported(text)
        raise ThreepidDenied(text)

    async def request_token(
        self, purpose: str, medium: str, address: str, request: TokenRequest
    ) -> str:
        """Send a token to an address, unless this attempt was made before; returns the session id.

        Raises `InvalidParam`, `ThreepidDenied`, `ThreepidMediumNotSupported`, `LimitExceeded` and
        what the sender raises.
        """
        if not is_opaque_id(request.client_secret):
            raise InvalidParam("client_secret: 1 to 255 characters of 0-9, a-z, A-Z and .=_-")
        try:
            address = canonical_address(medium, address)
        except InvalidThirdPartyId as error:
            raise InvalidParam(str(error)) from None
        self.check_supported(purpose, medium)
        if purpose != PASSWORD:
            self._check_domain(medium, address)
        owner = await self._db.run(find_third_party_id_owner, medium, address)
        token = new_token() if (owner is not None) == (purpose == PASSWORD) else None
        session = self._session(purpose, medium, address, request, token)
        sid, is_new = await self._db.transaction(begin_validation, session, now_ms(self._clock))
        if is_new:
            try:
                await self._send(ValidationMessage(purpose, address, sid, token), medium)
            except Exception:
                await self._revert_attempt(session, sid)
                raise
        return sid

    async def find_by_token(self, sid: str, token: str) -> ValidationSession | None:
        """The session of a token, unless it has expired."""
        if not is_opaque_id(sid):
            return None
        session = await self._db.run(find_validation_session, sid, now_ms(self._clock))
        if session is None or session.token_hash is None:
            return None
        return session if compare_digest(session.token_hash, token_hash(token)) else None

    async def confirm(self, session: ValidationSession) -> None:
        """Mark a session as validated: the user has submitted the token."""
        now = now_ms(self._clock)
        await self._db.run(set_validated, session.sid, now, now + LIFETIME_MS)

    async def find_validated(
        self, purpose: str, medium: str | None, credentials: ThreepidCredentials
    ) -> ValidationSession:
        """The validated session of a client. Raises `ThreepidAuthFailed`."""
        session = None
        if is_opaque_id(credentials.sid):
            session = await self._db.run(
                find_validation_session, credentials.sid, now_ms(self._clock)
            )
        secret_hash = token_hash(credentials.client_secret)
        if (
            session is None
            or not compare_digest(session.secret_hash, secret_hash)
            or session.purpose != purpose
            or (medium is not None and session.medium != medium)
            or session.validated_ms is None
        ):
            raise ThreepidAuthFailed("The address has not been validated")
        return session

    async def end(self, sid: str) -> bool:
        """Delete a session; false where that was done before."""
        return await self._db.run(delete_validation_session, sid)

    def _check_domain(self, medium: str, address: str) -> None:
        domains = {domain.casefold() for domain in self._settings.allowed_domains}
        if medium == EMAIL and domains and address.rpartition("@")[2] not in domains:
            raise ThreepidDenied("Addresses of this domain are not allowed here")

    def _session(
        self, purpose: str, medium: str, address: str, request: TokenRequest, token: str | None
    ) -> ValidationSession:
        return ValidationSession(
            sid=new_token(),
            secret_hash=token_hash(request.client_secret),
            purpose=purpose,
            medium=medium,
            address=address,
            send_attempt=request.send_attempt,
            token_hash=None if token is None else token_hash(token),
            next_link=safe_next_link(request.next_link, self._settings.allowed_redirect_prefixes),
            validated_ms=None,
            expires_ms=now_ms(self._clock) + LIFETIME_MS,
        )

    async def _send(self, message: ValidationMessage, medium: str) -> None:
        self._check_limit(message.address)
        await self._senders[medium].deliver(message)

    async def _revert_attempt(self, attempt: ValidationSession, sid: str) -> None:
        """Remove an attempt that sent nothing, since no rate limit bounds its rows on disk."""
        if sid == attempt.sid:
            await self._db.run(delete_validation_session, sid)
        else:
            await self._db.run(undo_send_attempt, sid, attempt.send_attempt)


def safe_next_link(link: str | None, allowed: tuple[str, ...]) -> str | None:
    """The page that follows the validation, if the settings allow it: no open redirect."""
    if link is None or len(link) > MAX_LINK or not link.isascii() or not link.isprintable():
        return None
    # Browsers read a backslash as a slash, and ignore spaces.
    if " " in link or "\\" in link:
        return None
    try:
        target = urlsplit(link)
        known = [urlsplit(one) for one in allowed]
    except ValueError:
        return None
    for one in known:
        same_place = (target.scheme, target.netloc) == (one.scheme, one.netloc)
        if same_place and target.path.startswith(one.path):
            return link
    return None
