"""The registered application services, by id, by token, and by what they cover."""

from collections.abc import Callable, Collection, Sequence

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import Exclusive, MissingToken, UnknownToken

MAX_CACHED_USERS = 100_000


def as_party(service: Appservice) -> Requester:
    """An application service as a requester, whose actions are counted."""
    return Requester(
        service.sender, None, appservice=service.id, is_rate_limited=service.rate_limited
    )


class Appservices:
    """All application services; their number and registrations may change while the server runs.

    `all` are in the order of their files. Answers about users are cached, so that nothing is
    matched twice in the hot path of a message.
    """

    def __init__(self, registered: Sequence[Appservice] = ()) -> None:
        self._users: LruCache[str, tuple[Appservice, ...]] = LruCache(
            "appservices_of_users", MAX_CACHED_USERS
        )
        self._subscribers: list[Callable[[], None]] = []
        self._set(registered)

    def _set(self, registered: Sequence[Appservice]) -> None:
        self.all = tuple(registered)
        self.have_room_namespaces = any(each.rooms.namespaces for each in self.all)
        self._by_id = {each.id: each for each in self.all}
        self._by_token = {each.as_token: each for each in self.all}
        # Most users belong to none: that is found out without any regular expression.
        prefixes = {each.sender for each in self.all}
        for each in self.all:
            prefixes.update(namespace.prefix for namespace in each.users.namespaces)
        self._prefixes = tuple(prefixes)

    def replace(self, registered: Sequence[Appservice]) -> None:
        """Use other registrations from now on, and notify the subscribers."""
        self._set(registered)
        self._users.clear()
        for subscriber in self._subscribers:
            subscriber()

    def subscribe(self, subscriber: Callable[[], None]) -> None:
        """Have `subscriber()` called after each replacement of the registrations."""
        self._subscribers.append(subscriber)

    def by_id(self, appservice_id: str) -> Appservice | None:
        """The application service with an id."""
        return self._by_id.get(appservice_id)

    def by_token(self, as_token: str) -> Appservice | None:
        """The application service that authenticates with a token."""
        return self._by_token.get(as_token)

    def authenticate(self, as_token: str | None) -> Appservice:
        """The application service of a token. Raises `MissingToken` and `UnknownToken`."""
        if as_token is None:
            raise MissingToken("An application service has to send its token")
        service = self.by_token(as_token)
        if service is None:
            raise UnknownToken("Not the token of an application service")
        return service

    def party_of(self, as_token: str) -> Requester | None:
        """The application service of a token as a requester, whose actions are counted."""
        service = self.by_token(as_token)
        return None if service is None else as_party(service)

    def covering_user(self, user_id: str) -> tuple[Appservice, ...]:
        """The application services that a local user belongs to; none for remote users."""
        if not user_id.startswith(self._prefixes):
            return ()
        found = self._users.get(user_id)
        if found is None:
            found = self._users.put(
                user_id, tuple(each for each in self.all if each.covers_user(user_id))
            )
        return found

    def owner_of_user(self, user_id: str) -> Appservice | None:
        """The application service to which a user, existing or not, is exclusive."""
        return next((each for each in self.covering_user(user_id) if each.owns_user(user_id)), None)

    def covering_room(self, room_id: str) -> Collection[Appservice]:
        """The application services that have a room id in their namespaces."""
        if not self.have_room_namespaces:
            return ()
        return [each for each in self.all if each.rooms.covers(room_id)]

    def covering_alias(self, alias: str) -> Collection[Appservice]:
        """The application services that have an alias in their namespaces."""
        return [each for each in self.all if each.aliases.covers(alias)]

    def owner_of_alias(self, alias: str) -> Appservice | None:
        """The application service to which an alias, existing or not, is exclusive."""
        return next((each for each in self.all if each.owns_alias(alias)), None)

    def check_may_use_alias(self, caller: Requester, alias: str) -> None:
        """Raise `Exclusive` unless a caller may create or delete this local alias.

        An application service may do so in its namespaces only, all others outside of exclusive
        ones. A user who is exclusive to it belongs to it with any token.
        """
        if not self.all:
            return
        owner = self.owner_of_alias(alias)
        service = None if caller.appservice is None else self.by_id(caller.appservice)
        if service is not None and not service.covers_alias(alias):
            raise Exclusive("The alias does not belong to this application service")
        service = service or self.owner_of_user(caller.user_id)
        if owner is not None and owner is not service:
            raise Exclusive("This alias is reserved for an application service")
