"""Signed requests that make no sense, at every endpoint for servers: each is refused, none fails.

The table of endpoints is the server's own, so that none is forgotten.
"""

import importlib
import inspect
import pkgutil
from itertools import product
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import quote

import federation
from federation.api.invites import SendInvite
from federation.api.transactions import Transaction
from homeserver.web.routes import Auth, Route
from tests.support.organisations import FederationTestCase

WORDS = ["x", "", "!x:y", "@x:y", "$x", "\x00", "é" * 200, "a" * 5_000, "../..", "%2F"]
VALUES: list[Any] = [None, 5, 1.5, "x", [], {}, [[]], True, {"a": None}, -1, 10**15]
QUERIES: list[dict[str, str]] = [
    {},
    {"event_id": "$x", "v": "x", "limit": "-1", "ts": "x", "dir": "f", "ver": "12"},
    {"event_id": "\x00", "v": "$x", "limit": "5", "ts": "0", "dir": "f", "user_id": "@x:y"},
    {"suggested_only": "perhaps", "field": "\x00", "room_alias": "#x:y", "omit_members": "x"},
]

# Those bodies hold lists of elements, and are decoded by the handlers themselves.
ELEMENTS = {"send_transaction": Transaction, "send_invite_v2": SendInvite}


def all_routes() -> list[Route]:
    """The routes of each class in `federation` that has some."""
    found: dict[tuple[str, str], Route] = {}
    for info in pkgutil.walk_packages(federation.__path__, "federation."):
        module = importlib.import_module(info.name)
        for _, api in inspect.getmembers(module, inspect.isclass):
            is_api = inspect.isfunction(getattr(api, "routes", None))
            if not is_api or api.__module__ != module.__name__:
                continue
            parameters = list(inspect.signature(api).parameters.values())
            positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
            named = {one.name: MagicMock() for one in parameters if one.kind is one.KEYWORD_ONLY}
            routes: list[Route] = api(*[MagicMock() for _ in positional], **named).routes()
            found |= {(route.path, route.method): route for route in routes}
    return [found[key] for key in sorted(found)]


class MalformedRequestTests(FederationTestCase):
    timeout = 240

    async def test_no_endpoint_fails_on_malformed_requests(self) -> None:
        """With any request, this server neither fails nor shows internals."""
        evil, here = await self.fake(), await self.organisation()
        alice = await here.register("alice")
        room_id = await alice.create_room(public=True)
        said = await alice.say(room_id, "hello")
        room = await evil.join(here.name, room_id, evil.user("mallory"))
        good = {
            "room_id": room_id,
            "event_id": said,
            "user_id": evil.user("mallory"),
        }
        event = room.build("m.room.message", {}, sender=evil.user("mallory")).pdu

        table = all_routes()
        self.assertGreater(len(table), 30, "a table that came out short checks nothing")
        for route in table:
            if route.auth not in (Auth.SERVER, Auth.NONE):
                continue
            names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
            paths = [dict.fromkeys(names, word) for word in WORDS]
            paths.append({name: good.get(name, "x") for name in names})
            for path, query in product(paths, QUERIES):
                await self.is_refused(evil, here, route, path, query, None)
            if route.method == "GET":
                continue
            body = _members_of(route)
            bodies: list[Any] = [*VALUES, event, {**event, "content": 5}]
            bodies += [{**body, name: value} for name in body for value in VALUES]
            for content in bodies:
                await self.is_refused(evil, here, route, paths[-1], {}, content)

        await alice.say(room_id, "still here")

    async def is_refused(
        self,
        evil: Any,
        here: Any,
        route: Route,
        path: dict[str, str],
        query: dict[str, str],
        body: Any,
    ) -> None:
        """One request gets an answer that is no failure."""
        url = route.path
        for name, word in path.items():
            url = url.replace(f"{{{name}}}", quote(word, safe=""))
        status, answer = await evil.ask(here.name, route.method, url, body, query=query)
        told = (route.method, route.path, path, query, body, status, answer)
        self.assertLess(status, 500, told)
        if status >= 400:
            self.assertIn("errcode", answer, told)


def _members_of(route: Route) -> dict[str, Any]:
    """A body with all members that the endpoint knows, of which each can be put wrong."""
    handler = inspect.unwrap(route.handler)
    annotation = ELEMENTS.get(
        handler.__name__, inspect.get_annotations(handler, eval_str=True).get("body")
    )
    fields = getattr(annotation, "__struct_fields__", ())
    examples: dict[str, Any] = {
        "room_version": "12",
        "type": "m.room.member",
        "room_id": "!x:y",
        "sender": "@x:y",
        "state_key": "@x:y",
        "event": {"type": "m.room.member"},
        "content": {"membership": "invite", "third_party_invite": {"signed": {}}},
        "medium": "email",
        "address": "x@y.example",
        "mxid": "@x:y",
        "server_keys": {"x": {}},
    }
    return {field: examples.get(field, []) for field in fields}
