"""The router: from method and raw path to the route and the values in its path.

A trie over decoded path segments. A literal segment is preferred to a parameter if it has the
method; a parameter never matches an empty segment. A slash at the end of a path is ignored, so that
`/state/{event_type}/` is the state event with the empty state key, but a route that ends in a slash
itself does not match without it. A route may be for all paths that no other one has
(`OTHER_PATHS`). The routes of `v3` also serve version `r0`, the old name of the same API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from collections.abc import Iterable

from homeserver.protocol.errors import MethodNotAllowed, Unrecognized
from homeserver.web.arguments import Arguments
from homeserver.web.query import split_path
from homeserver.web.routes import OTHER_PATHS, Route


class Endpoint:
    """A registered route, with the analysed arguments of its handler."""

    __slots__ = ("arguments", "needs_slash", "route")

    def __init__(self, route: Route, path_names: list[str]) -> None:
        self.route = route
        self.needs_slash = route.path.endswith("/")
        self.arguments = Arguments(route, path_names)


class NoSuchMethod(MethodNotAllowed):
    """The path exists, but not with this method. `allowed` are the methods that it has."""

    def __init__(self, allowed: Iterable[str]) -> None:
        super().__init__("This endpoint does not have that method")
        self.allowed = sorted(allowed)

    def headers(self) -> dict[str, str]:
        return {"Allow": ", ".join(self.allowed)}


class _Node:
    __slots__ = ("endpoints", "literals", "parameter")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.endpoints: dict[str, Endpoint] = {}


class Router:
    """The routes of one listener.

    Raises `ValueError` if two routes match the same requests.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = list(routes)
        self.endpoints: list[Endpoint] = []
        self._root = _Node()
        # Paths without parameters, such as that of `/sync`, need no walk through the trie.
        self._fixed: dict[tuple[str, bytes], Endpoint] = {}
        self._others = _Node()  # for the paths that match nothing else
        for route in self.routes:
            self._add(route)

    def match(self, method: str, path: bytes) -> tuple[Endpoint, list[str]]:
        """The endpoint for a request, and the values of its path parameters.

        Raises `Unrecognized`, `NoSuchMethod`, or `InvalidParam` for a path that is not text.
        """
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, []
        segments = split_path(path)
        has_slash = segments[-1:] == [""]
        if len(segments) > 1 and has_slash:
            segments.pop()
        wanted = _Wanted(method, has_slash, set())
        found = _find(self._root, segments, 0, [], wanted)
        if found is None and method == "HEAD":
            found = _find(self._root, segments, 0, [], wanted.but_get())
        allowed = wanted.allowed
        if found is None and not allowed:
            found = self._find_other(wanted)
        if found is not None:
            return found
        if not allowed:
            raise Unrecognized("There is no such endpoint")
        raise NoSuchMethod(allowed | {"OPTIONS"} | ({"HEAD"} if "GET" in allowed else set()))

    def _find_other(self, wanted: "_Wanted") -> tuple[Endpoint, list[str]] | None:
        """The endpoint for a path that no route names."""
        endpoint = wanted.find_in(self._others)
        if endpoint is None and wanted.method == "HEAD":
            endpoint = wanted.but_get().find_in(self._others)
        return None if endpoint is None else (endpoint, [])

    def _add(self, route: Route) -> None:
        if route.path == OTHER_PATHS:
            endpoint = self._others.endpoints[route.method] = Endpoint(route, [])
            self.endpoints.append(endpoint)
            return
        segments = route.path.split("/")[1:]
        if len(segments) > 1 and not segments[-1]:
            segments.pop()
        node, names = self._root, []
        for index, segment in enumerate(segments):
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                parent, node = node, node.literals.setdefault(segment, _Node())
                if segment == "v3" and index == 2 and segments[0] == "_matrix":
                    parent.literals["r0"] = node
        if route.method in node.endpoints:
            raise ValueError(f"there are two routes for {route.method} {route.path}")
        endpoint = node.endpoints[route.method] = Endpoint(route, names)
        self.endpoints.append(endpoint)
        if not names:
            self._fixed[(route.method, route.path.encode())] = endpoint


class _Wanted:
    """A method, and whether the path ends in a slash.

    The methods of paths that match, but do not have this one, are added to `allowed`.
    """

    __slots__ = ("allowed", "has_slash", "method")

    def __init__(self, method: str, has_slash: bool, allowed: set[str]) -> None:
        self.method = method
        self.has_slash = has_slash
        self.allowed = allowed

    def but_get(self) -> "_Wanted":
        """The same with the method GET."""
        return _Wanted("GET", self.has_slash, self.allowed)

    def find_in(self, node: _Node) -> Endpoint | None:
        """The endpoint at the end of the path."""
        endpoint = node.endpoints.get(self.method)
        if endpoint is not None and self._suits(endpoint):
            return endpoint
        self.allowed.update(
            method for method, other in node.endpoints.items() if self._suits(other)
        )
        return None

    def _suits(self, endpoint: Endpoint) -> bool:
        return self.has_slash or not endpoint.needs_slash


def _find(
    node: _Node, segments: list[str], index: int, values: list[str], wanted: _Wanted
) -> tuple[Endpoint, list[str]] | None:
    """Walk down from `node`, literals first; if they do not match, try the parameter."""
    while index < len(segments):
        segment = segments[index]
        index += 1
        literal = node.literals.get(segment)
        parameter = node.parameter if segment else None
        if literal is not None:
            if parameter is None:
                node = literal
                continue
            found = _find(literal, segments, index, values, wanted)
            if found is not None:
                return found
        if parameter is None:
            return None
        node = parameter
        values = [*values, segment]
    endpoint = wanted.find_in(node)
    return None if endpoint is None else (endpoint, values)
