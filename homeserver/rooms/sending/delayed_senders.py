"""Sending a delayed event: as its user would send it now, with all checks of this moment.

The id of a delayed event is the transaction id of what is sent. So it is sent once, even if the
process is killed before it is recorded what became of it, and its user finds the id in `unsigned`.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
"""

import msgspec

from homeserver.accounts.sessions.requester import DELAYED_SCOPE, Requester
from homeserver.protocol.errors import Forbidden, UserLocked
from homeserver.rooms.events.event_draft import ClientTransaction, Stickiness, sending_path
from homeserver.rooms.sending.sending import Sending
from homeserver.rooms.sending.transaction_ids import Transactions
from homeserver.storage.accounts.delayed_events import DelayedEvent
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database
from homeserver.web.rate_limits import RateLimits


class DelayedSender:
    """Sends delayed events, within the rate limits of messages."""

    def __init__(
        self,
        db: Database,
        sending: Sending,
        transactions: Transactions,
        rate_limits: RateLimits,
    ) -> None:
        self._db = db
        self._sending = sending
        self._transactions = transactions
        self._rate_limits = rate_limits

    async def send(self, delayed: DelayedEvent) -> str:
        """Send it, unless that was done before; returns the event id.

        Raises what sending the event raises, `Forbidden` and `UserLocked` for the user's account,
        and `LimitExceeded`.
        """
        sent = await self.find_sent(delayed)
        if sent is not None:
            return sent
        caller = await self._requester(delayed)
        self._rate_limits.check("message", caller)
        content = msgspec.json.decode(delayed.content)
        room_id, event_type, delay_id = delayed.room_id, delayed.type, delayed.delay_id
        sticky = None
        if delayed.sticky_ms is not None and delayed.sticky_name is not None:
            sticky = Stickiness(delayed.sticky_ms, delayed.sticky_name)
        if delayed.state_key is None:
            return await self._sending.send_message(
                caller, room_id, event_type, content, delay_id, sticky
            )
        return await self._sending.set_state(
            caller, room_id, event_type, delayed.state_key, content, delay_id, sticky
        )

    async def find_sent(self, delayed: DelayedEvent) -> str | None:
        """The event that it has become, even if that was not recorded before a crash."""
        path = sending_path(delayed.room_id, delayed.type)
        return await self._transactions.find(
            ClientTransaction(delayed.user_id, DELAYED_SCOPE, delayed.delay_id, path)
        )

    async def _requester(self, delayed: DelayedEvent) -> Requester:
        user = await self._db.run(find_user, delayed.user_id)
        if user is None or user.is_deactivated:
            raise Forbidden("This account has been deactivated")
        if user.is_locked:
            raise UserLocked("This account has been locked")
        return Requester(
            delayed.user_id,
            DELAYED_SCOPE,
            is_guest=user.is_guest,
            is_admin=user.is_admin,
            is_suspended=user.is_suspended,
            appservice=delayed.appservice,
            is_rate_limited=delayed.is_rate_limited,
            event_ts=delayed.event_ts,
        )
