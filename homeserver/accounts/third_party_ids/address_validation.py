"""Address validation: the proof that an e-mail address or a telephone number is the user's.

A client asks for a token, which is sent to the address; the user shows it, by a link in a mail; and
the client, which alone knows the `client_secret`, uses the session for the purpose that it was
begun for, and for no other. The link holds no secret of the client: who reads the mail can agree
to what it says, and cannot do it.

Whether an account has an address is nobody's business. So a request for a token is answered alike
in every case, and the mail says what the answer does not: that the address has an account already,
or that it has none.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Protocol
from urllib.parse import urlsplit

from homeserver.accounts.sessions.secret_tokens import new_token, token_hash
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.config.contact import EmailSettings
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

LIFETIME_MS = 24 * 60 * 60 * 1000  # from the last change of a session, as the text has it
MAX_LINK = 2_048


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a client says of the token that it wants, beside the address."""

    client_secret: str
    send_attempt: int
    next_link: str | None = None


class ValidationSender(Protocol):
    """Brings letters to the addresses of one medium."""

    async def deliver(self, letter: ValidationMessage) -> None:
        """Raises `MailNotSent`, or `InvalidParam` for an address that cannot be reached."""


class AddressValidation:
    """Sends tokens and keeps the sessions.

    `couriers` are those of the media that the server can reach; there may be none.
    `check_limit(address)` counts a letter to an address; it raises `LimitExceeded`.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: EmailSettings,
        couriers: Mapping[str, ValidationSender],
        check_limit: Callable[[str], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._senders = couriers
        self._check_limit = check_limit

    def supports(self, medium: str) -> bool:
        """Whether addresses of a medium can be validated here."""
        return medium in self._senders

    def check_supported(self, purpose: str, medium: str) -> None:
        """Raise `ThreepidMediumNotSupported` or `ThreepidDenied`, as the text has it."""
        if self.supports(medium):
            return
        text = "This server validates no addresses of this kind"
        if purpose == ADD:
            raise ThreepidMediumNotSupported(text)
        raise ThreepidDenied(text)

    async def request_token(
        self, purpose: str, medium: str, address: str, asked: TokenRequest
    ) -> str:
        """Send a token to an address, unless this attempt was made before; gives the session id.

        Raises `InvalidParam`, `ThreepidDenied`, `ThreepidMediumNotSupported`, `LimitExceeded` and
        what the courier raises.
        """
        if not is_opaque_id(asked.client_secret):
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
        session = self._session(purpose, medium, address, asked, token)
        sid, is_new = await self._db.transaction(begin_validation, session, now_ms(self._clock))
        if is_new:
            try:
                await self._send(ValidationMessage(purpose, address, sid, token), medium)
            except Exception:
                await self._take_back(session, sid)
                raise
        return sid

    async def find_by_token(self, sid: str, token: str) -> ValidationSession | None:
        """The session that a token belongs to, unless it has expired."""
        if not is_opaque_id(sid):
            return None
        session = await self._db.run(find_validation_session, sid, now_ms(self._clock))
        if session is None or session.token_hash is None:
            return None
        return session if compare_digest(session.token_hash, token_hash(token)) else None

    async def confirm(self, session: ValidationSession) -> None:
        """The user has shown the token."""
        now = now_ms(self._clock)
        await self._db.run(set_validated, session.sid, now, now + LIFETIME_MS)

    async def find_validated(
        self, purpose: str, medium: str | None, named: ThreepidCredentials
    ) -> ValidationSession:
        """The session of a client whose user has shown the token. Raises `ThreepidAuthFailed`."""
        session = None
        if is_opaque_id(named.sid):
            session = await self._db.run(find_validation_session, named.sid, now_ms(self._clock))
        secret_hash = token_hash(named.client_secret)
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
        """Spend a session; false where that was done before."""
        return await self._db.run(delete_validation_session, sid)

    def _check_domain(self, medium: str, address: str) -> None:
        domains = {domain.casefold() for domain in self._settings.allowed_domains}
        if medium == EMAIL and domains and address.rpartition("@")[2] not in domains:
            raise ThreepidDenied("Addresses of this domain are not allowed here")

    def _session(
        self, purpose: str, medium: str, address: str, asked: TokenRequest, token: str | None
    ) -> ValidationSession:
        return ValidationSession(
            sid=new_token(),
            secret_hash=token_hash(asked.client_secret),
            purpose=purpose,
            medium=medium,
            address=address,
            send_attempt=asked.send_attempt,
            token_hash=None if token is None else token_hash(token),
            next_link=safe_next_link(asked.next_link, self._settings.allowed_redirect_prefixes),
            validated_ms=None,
            expires_ms=now_ms(self._clock) + LIFETIME_MS,
        )

    async def _send(self, letter: ValidationMessage, medium: str) -> None:
        self._check_limit(letter.address)
        await self._senders[medium].deliver(letter)

    async def _take_back(self, attempt: ValidationSession, sid: str) -> None:
        """Nothing was sent: nothing stays, so nobody fills the disk with what no letter limits."""
        if sid == attempt.sid:
            await self._db.run(delete_validation_session, sid)
        else:
            await self._db.run(undo_send_attempt, sid, attempt.send_attempt)


def safe_next_link(link: str | None, allowed: tuple[str, ...]) -> str | None:
    """Where people go on to, if that is a place that the settings know: nobody else sends them."""
    if link is None or len(link) > MAX_LINK or not link.isascii() or not link.isprintable():
        return None
    # Browsers read a backslash as a slash, and ignore spaces.
    if " " in link or "\\" in link:
        return None
    try:
        wanted = urlsplit(link)
        known = [urlsplit(one) for one in allowed]
    except ValueError:
        return None
    for one in known:
        same_place = (wanted.scheme, wanted.netloc) == (one.scheme, one.netloc)
        if same_place and wanted.path.startswith(one.path):
            return link
    return None
