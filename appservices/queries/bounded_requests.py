"""Requests to application services that somebody waits for, within bounds.

Strangers and other servers can cause them. So each application service has a few slots of its own,
which all who wait for it get in rotation, and the time of each request is bounded, waiting for a
slot included. An application service that is slow or dead delays nobody who does not need it.

Spec: https://spec.matrix.org/v1.19/application-service-api/#querying
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred

from homeserver.accounts.appservices.provisioning import Party
from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deferreds import TimedOut, with_timeout
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import LimitExceeded

SLOTS = 10  # of one application service
SLOTS_OF_PARTY = 3
MAX_WAITING_OF_PARTY = 20
MAX_WAITING = 200
RETRY_AFTER_MS = 10_000

T = TypeVar("T")


class NoAnswer(Exception):
    """The application service has not answered in time, or this server is stopping."""


class BoundedRequests:
    """The requests that are under way or wait for a slot, of all application services."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[str, FairSlots] = {}  # by the id: as many as were ever registered
        self._running: set[Deferred[Any]] = set()
        self._is_ending = False

    async def run(
        self, appservice: Appservice, party: Party, work: Coroutine[Any, Any, T], seconds: float
    ) -> T:
        """The result of `work`, which sends requests to an application service for `party`.

        Raises `NoAnswer` after `seconds`, and `LimitExceeded` if too many wait already.
        """
        running = Deferred.fromCoroutine(self._in_slot(appservice, party, work))
        if self._is_ending:
            running.cancel()
        self._running.add(running)
        try:
            return await with_timeout(running, seconds, self._clock)
        except (TimedOut, CancelledError) as error:
            raise NoAnswer(f"{appservice.id} has not answered: {error}") from error
        except QueueFull as error:
            raise LimitExceeded(RETRY_AFTER_MS, "Too many wait for the bridge") from error
        finally:
            self._running.discard(running)

    def is_over(self, deadline: float) -> bool:
        """Whether no further request may be sent for something that has to end by `deadline`.

        A request that is cancelled may fail like any other, so this is asked before each attempt.
        """
        return self._is_ending or self._clock.seconds() >= deadline

    def end_waits(self) -> None:
        """End all requests: the server is about to stop."""
        self._is_ending = True
        for running in list(self._running):
            running.cancel()

    async def _in_slot(
        self, appservice: Appservice, party: Party, work: Coroutine[Any, Any, T]
    ) -> T:
        slots = self._slots.get(appservice.id)
        if slots is None:
            slots = self._slots[appservice.id] = FairSlots(
                SLOTS,
                share=SLOTS_OF_PARTY,
                max_waiting=MAX_WAITING_OF_PARTY,
                max_waiting_in_all=MAX_WAITING,
            )
        try:
            async with slots.slot(name_of(party)):
                return await work
        finally:
            work.close()  # it has not begun if there was no slot


def name_of(party: Party) -> str:
    """The name under which the requests of a party are counted."""
    return party.user_id if isinstance(party, Requester) else party
