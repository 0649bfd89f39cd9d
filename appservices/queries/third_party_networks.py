"""Third-party networks: the application services are asked, and their answers merged.

Several application services may bridge one protocol, such as one for each network of IRC. An
application service that does not answer in time has nothing to say; others are not delayed by it
beyond that time. What they say of their protocols is cached, silence included.

Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-networks
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from twisted.logger import Logger

from appservices.queries.bounded_requests import BoundedRequests, NoAnswer
from appservices.queries.third_party_answers import (
    merge_protocols,
    parse_locations,
    parse_protocol,
    parse_users,
)
from appservices.requests.appservice_client import APP, AppserviceClient, is_success
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.provisioning import Party
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deferreds import gather_all
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.outbound.http_client import OutboundError
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import (
    InvalidParam,
    LimitExceeded,
    NotFound,
    RemoteServerFailed,
)
from homeserver.web.rate_limits import RateLimits

NETWORKS = f"{APP}/thirdparty"
OLD_NETWORKS = "/_matrix/app/unstable/thirdparty"
TIMEOUT_SECONDS = 8.0
MAX_ANSWER = 262_144  # bytes
KEPT_SECONDS = 300.0
SILENT_SECONDS = 20.0  # for which the silence of an application service is remembered
MAX_PROTOCOLS = 1_000  # of all application services
MAX_FIELDS = 20
MAX_FIELD = 1_000  # characters
LIMIT = "appservice_query"

Parse = Callable[[bytes], list[Any]]

log = Logger()


class ThirdPartyNetworks:
    """What the application services say of their networks."""

    def __init__(
        self,
        clock: Clock,
        client: AppserviceClient,
        requests: BoundedRequests,
        limits: RateLimits,
        appservices: Appservices,
    ) -> None:
        self._clock = clock
        self._client = client
        self._requests = requests
        self._limits = limits
        self._appservices = appservices
        self._asking: SingleFlight[tuple[str, str], dict[str, Any] | None] = SingleFlight()
        # With the time until which each is valid, by application service and protocol.
        self._protocols: LruCache[tuple[str, str], tuple[float, dict[str, Any] | None]] = LruCache(
            "third_party_protocols", MAX_PROTOCOLS
        )
        appservices.subscribe(self._protocols.clear)

    async def protocols(self) -> dict[str, Any]:
        """All protocols of which an application service says something."""
        names = dict.fromkeys(name for each in self._appservices.all for name in each.protocols)
        found = await gather_all([self._merged(name) for name in names])
        return {name: one for name, one in zip(names, found, strict=True) if one is not None}

    async def protocol(self, name: str) -> dict[str, Any]:
        """One protocol. Raises `NotFound` and `RemoteServerFailed`."""
        self._bridging(name)
        found = await self._merged(name)
        if found is None:
            raise RemoteServerFailed("No bridge of this network describes it")
        return found

    async def locations(self, protocol: str, fields: Mapping[str, str], party: Party) -> list[Any]:
        """The portal rooms of a location. Raises `NotFound`, `RemoteServerFailed` and the like."""
        path = f"/location/{quote(protocol, safe='')}"
        return await self._search(self._bridging(protocol), path, fields, parse_locations, party)

    async def users(self, protocol: str, fields: Mapping[str, str], party: Party) -> list[Any]:
        """The Matrix users of a user. Raises `NotFound`, `RemoteServerFailed` and the like."""
        path = f"/user/{quote(protocol, safe='')}"
        return await self._search(self._bridging(protocol), path, fields, parse_users, party)

    async def locations_of(self, alias: str, party: Party) -> list[Any]:
        """The locations of a room alias."""
        return await self._search(
            self._bridging(None), "/location", {"alias": alias}, parse_locations, party
        )

    async def users_of(self, user_id: str, party: Party) -> list[Any]:
        """The users of networks whom a Matrix user represents."""
        return await self._search(
            self._bridging(None), "/user", {"userid": user_id}, parse_users, party
        )

    def _bridging(self, protocol: str | None) -> list[Appservice]:
        """The application services of a protocol, or of any."""
        found = [
            each
            for each in self._appservices.all
            if each.url is not None
            and (bool(each.protocols) if protocol is None else protocol in each.protocols)
        ]
        if not found:
            raise NotFound("No bridge of this server knows the network")
        return found

    async def _merged(self, protocol: str) -> dict[str, Any] | None:
        bridging = [each for each in self._appservices.all if protocol in each.protocols]
        answers = await gather_all([self._described(each, protocol) for each in bridging])
        found = [each for each in answers if each is not None]
        return merge_protocols(found) if found else None

    async def _described(self, appservice: Appservice, protocol: str) -> dict[str, Any] | None:
        key = (appservice.id, protocol)
        until, cached = self._protocols.get(key) or (0.0, None)
        if until > self._clock.seconds():
            return cached
        return await self._asking.join(key, lambda: self._describe(appservice, protocol))

    async def _describe(self, appservice: Appservice, protocol: str) -> dict[str, Any] | None:
        path = f"/protocol/{quote(protocol, safe='')}"
        body = await self._ask(appservice, path, appservice.sender)
        found = parse_protocol(body, appservice.id) if body and isinstance(body, bytes) else None
        seconds = SILENT_SECONDS if found is None else KEPT_SECONDS
        self._protocols.put((appservice.id, protocol), (self._clock.seconds() + seconds, found))
        return found

    async def _search(
        self,
        asked: Sequence[Appservice],
        path: str,
        fields: Mapping[str, str],
        parse: Parse,
        party: Party,
    ) -> list[Any]:
        if len(fields) > MAX_FIELDS or any(
            len(text) > MAX_FIELD for field in fields.items() for text in field
        ):
            raise InvalidParam(f"At most {MAX_FIELDS} fields of {MAX_FIELD} characters")
        self._limits.check(LIMIT, party)
        path = f"{path}?{urlencode(fields)}" if fields else path
        bodies = await gather_all([self._ask(each, path, party) for each in asked])
        found = [each for body in bodies if isinstance(body, bytes) for each in parse(body)]
        if found:
            return found
        for body in bodies:
            if isinstance(body, LimitExceeded):
                raise body
        if all(body is None for body in bodies):
            raise RemoteServerFailed("No bridge of this network has answered")
        raise NotFound("No bridge of this network knows it")

    async def _ask(
        self, appservice: Appservice, path: str, party: Party
    ) -> bytes | LimitExceeded | None:
        """The body of a successful answer, empty for all other answers; `None` without one.

        Where too many wait for this application service already, that is returned: others may
        know the answer.
        """
        sending = self._client.request(
            appservice,
            "GET",
            NETWORKS + path,
            legacy_path=OLD_NETWORKS + path,
            timeout=TIMEOUT_SECONDS,
            max_body=MAX_ANSWER,
        )
        try:
            response = await self._requests.run(appservice, party, sending, TIMEOUT_SECONDS)
        except (NoAnswer, OutboundError) as error:
            log.info(
                "{appservice} says nothing of its networks: {error}",
                appservice=appservice.id,
                error=error,
            )
            return None
        except LimitExceeded as error:
            return error
        if response.status >= 500:
            return None
        return response.body if is_success(response) else b""
