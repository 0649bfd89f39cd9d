"""Unknown users and room aliases: the application services are asked, and create them.

An application service creates the user or the alias through the Client-Server API before it
answers. So its answer is worth nothing by itself: what counts is whether the name exists then.
Concurrent questions for one name are one, and a negative answer is remembered for a short time.

Spec: https://spec.matrix.org/v1.19/application-service-api/#querying
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from urllib.parse import quote

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from appservices.queries.bounded_requests import BoundedRequests, NoAnswer
from appservices.requests.appservice_client import APP, AppserviceClient, is_success
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.provisioning import Party
from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deferreds import gather_all
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.retry_pauses import RetryPauses
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.config.sections.limits import RateSettings
from homeserver.outbound.http_client import OutboundError
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import LimitExceeded, NotFound, RequestTimeout
from homeserver.web.rate_limits import RateLimits

TOTAL_SECONDS = 15.0  # for all attempts; the specification leaves it open
ATTEMPT_SECONDS = 10.0
PAUSES = RetrySchedule((0.5, 2.0))
MAX_ATTEMPTS = 3
UNKNOWN_SECONDS = 30.0  # for which a negative answer is remembered
MAX_UNKNOWN = 10_000  # names
LIMIT = "appservice_query"
STRANGERS = "strangers"
# Of all addresses and servers together, for each application service; users of this server have
# their own limits alone, so that no flood from outside keeps them from what they need.
STRANGERS_RATE = RateSettings(per_second=20.0, burst=200)
TRY_AGAIN = frozenset({408, 429})  # and all of 500 and above

log = Logger()


class NameKind(msgspec.Struct, frozen=True):
    """Users or aliases: where they are asked for, and who can be asked.

    `owner_of` gives the application service to which a name is exclusive, `covering` all those in
    whose namespaces it is, and `exists` tells whether there is such a local name.
    """

    noun: str
    path: str
    legacy_path: str
    owner_of: Callable[[str], Appservice | None]
    covering: Callable[[str], Iterable[Appservice]]
    exists: Callable[[str], Awaitable[bool]]


def users(appservices: Appservices, exists: Callable[[str], Awaitable[bool]]) -> NameKind:
    """The kind of user ids."""
    return NameKind(
        "user",
        f"{APP}/users/",
        "/users/",
        appservices.owner_of_user,
        appservices.covering_user,
        exists,
    )


def aliases(appservices: Appservices, exists: Callable[[str], Awaitable[bool]]) -> NameKind:
    """The kind of room aliases."""
    return NameKind(
        "room alias",
        f"{APP}/rooms/",
        "/rooms/",
        appservices.owner_of_alias,
        appservices.covering_alias,
        exists,
    )


def limits_of_strangers(clock: IReactorTime) -> RateLimits:
    """The limits for all addresses and servers together, for users and aliases alike."""
    return RateLimits(clock, {STRANGERS: STRANGERS_RATE})


class UnknownNames:
    """Asks for the names of one kind; `provision` is the port of the domain (`Provision`).

    `unknown` has the names that do not exist, each until when that is trusted.
    """

    def __init__(
        self,
        clock: Clock,
        client: AppserviceClient,
        requests: BoundedRequests,
        limits: RateLimits,
        strangers: RateLimits,
        kind: NameKind,
        unknown: LruCache[str, float],
    ) -> None:
        self._strangers = strangers
        self._clock = clock
        self._client = client
        self._requests = requests
        self._limits = limits
        self._kind = kind
        self._pauses = RetryPauses(clock, PAUSES)
        self._asking: SingleFlight[str, None] = SingleFlight()
        self._unknown = unknown

    def forget(self) -> None:
        """Forget negative answers: other application services may be registered now."""
        self._unknown.clear()

    async def provision(self, name: str, party: Party) -> None:
        """Have an application service create a name that does not exist; see `Provision`."""
        asked = self._asked(name, party)
        if not asked or await self._kind.exists(name):
            return
        if (self._unknown.get(name) or 0.0) > self._clock.seconds():
            raise self._not_found(name)
        self._limits.check(LIMIT, party)
        if isinstance(party, str):
            for each in asked:
                self._strangers.check(STRANGERS, each.id)
        await self._asking.join(name, lambda: self._ask_all(asked, name, party))

    def _asked(self, name: str, party: Party) -> list[Appservice]:
        """Those to ask: the only one that may create the name, or all that cover it.

        One that needs its own name knows it, and may be unable to answer while it waits for us.
        """
        owner = self._kind.owner_of(name)
        covering = self._kind.covering(name) if owner is None else [owner]
        own = party.appservice if isinstance(party, Requester) else None
        return [each for each in covering if each.url is not None and each.id != own]

    async def _ask_all(self, asked: Sequence[Appservice], name: str, party: Party) -> None:
        answered = await gather_all(self._ask(each, name, party) for each in asked)
        if await self._kind.exists(name):
            return
        for each in answered:
            if isinstance(each, LimitExceeded):
                raise each
        if not all(answered):
            raise RequestTimeout(f"The bridge of the {self._kind.noun} {name} does not answer")
        self._unknown.put(name, self._clock.seconds() + UNKNOWN_SECONDS)
        raise self._not_found(name)

    async def _ask(self, appservice: Appservice, name: str, party: Party) -> bool | LimitExceeded:
        """Whether an application service has answered; what, is in the database.

        Where too many wait for it already, that is returned: others may create the name.
        """
        attempts = self._attempts(appservice, name, self._clock.seconds() + TOTAL_SECONDS)
        try:
            await self._requests.run(appservice, party, attempts, TOTAL_SECONDS)
        except (NoAnswer, OutboundError) as error:
            log.warn(
                "could not ask {appservice} for {name}: {error}",
                appservice=appservice.id,
                name=name,
                error=error,
            )
            return False
        except LimitExceeded as error:
            return error
        return True

    async def _attempts(self, appservice: Appservice, name: str, deadline: float) -> None:
        """Ask until there is an answer. Raises `OutboundError`."""
        for failures in range(MAX_ATTEMPTS):
            if failures:
                await self._pauses.wait(failures)
            try:
                status = await self._status(appservice, name)
            except OutboundError:
                if failures == MAX_ATTEMPTS - 1 or self._requests.is_over(deadline):
                    raise
                continue
            if status < 500 and status not in TRY_AGAIN:
                return
        raise OutboundError(f"the status was {status}")

    async def _status(self, appservice: Appservice, name: str) -> int:
        quoted = quote(name, safe="")
        response = await self._client.request(
            appservice,
            "GET",
            self._kind.path + quoted,
            legacy_path=self._kind.legacy_path + quoted,
            timeout=ATTEMPT_SECONDS,
        )
        if not is_success(response) and response.status != 404:
            log.warn(
                "{appservice} answered {status} when it was asked for {name}",
                appservice=appservice.id,
                status=response.status,
                name=name,
            )
        return response.status

    def _not_found(self, name: str) -> NotFound:
        return NotFound(f"The {self._kind.noun} {name} does not exist")
