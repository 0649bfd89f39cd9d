"""The server's own route table, so that no endpoint is forgotten.

The constructor of an API object only stores its arguments, so placeholders are enough to list its
routes; the requests go to a real server.
"""

import importlib
import inspect
import pkgutil
from typing import Any
from unittest.mock import MagicMock

from homeserver import client_api
from homeserver.web.routes import Route


def all_routes() -> list[Route]:
    """The routes of each class in `homeserver.client_api` that has some, in a fixed order."""
    found: dict[tuple[str, str], Route] = {}
    for info in pkgutil.walk_packages(client_api.__path__, "homeserver.client_api."):
        module = importlib.import_module(info.name)
        for _, api in inspect.getmembers(module, inspect.isclass):
            if api.__module__ == module.__name__ and inspect.isfunction(
                getattr(api, "routes", None)
            ):
                found |= {(route.path, route.method): route for route in _with_stand_ins(api)}
    return [found[key] for key in sorted(found)]


def _with_stand_ins(api: type[Any]) -> list[Route]:
    parameters = list(inspect.signature(api).parameters.values())
    positional = [one for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    named = {one.name: MagicMock() for one in parameters if one.kind is one.KEYWORD_ONLY}
    routes: list[Route] = api(*[MagicMock() for _ in positional], **named).routes()
    return routes
