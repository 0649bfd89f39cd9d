"""Writes docs/conformance.md: which endpoints of the specification the server serves.

Run by `make conformance`, from the top folder of the checkout. `tools/spec_endpoints.tsv` holds the
endpoints of the specification; it was made from the API definitions of version 1.19. The endpoints
of the server are the routes of a running server, so the page lists what the wiring serves.

Spec: https://spec.matrix.org/v1.19/
"""

import csv
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from homeserver.app import Homeserver
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.loading import parse_settings
from homeserver.protocol.proposals.unstable_names import PROPOSALS, Proposal
from homeserver.web.routes import Route

HERE = Path(__file__).resolve().parent
SPEC = "https://spec.matrix.org/v1.19/"
APIS = {"client-server": "Client-Server API", "server-server": "Server-Server API"}
STATUSES = ("served", "not yet")

SETTINGS = """
server_name: conformance.example
data_dir: {folder}
listeners: [{{port: 0, bind: 127.0.0.1, resources: [client, federation, health, metrics]}}]
registration: {{shared_secret: a secret of this run}}
federation: {{deny: ['*']}}
url_previews: {{enabled: true}}
public_baseurl: https://conformance.example
oauth: {{enabled: true}}
single_sign_on: {{providers: [{{kind: cas, id: cas, name: CAS, server_url: 'http://cas.example'}}]}}
"""

INTRODUCTION = f"""# Conformance

<!-- Written by `make conformance`. Changes made by hand are lost. -->

This page lists the endpoints of the [Matrix specification]({SPEC}), version
1.19, that a homeserver serves, and says of each whether this server serves it. A served endpoint
has a route, whose handler has the name of the operation. [deviations.md](deviations.md) says
where the server differs from the specification on purpose, [sytest.md](sytest.md) which tests of an
outside suite pass.

Bridges, push gateways and policy servers serve endpoints too. A homeserver only calls those, so
this page does not list them.
"""

BEYOND = """## Endpoints beyond the specification

| endpoints | reason |
|---|---|
"""

UNSTABLE = """## Unstable names

Names that clients, bridges and servers use for what is specified by now, or only proposed. Flags
are those of `GET /_matrix/client/versions`; the other names are parameters, members and types, each
with what it is called here.

| proposal | flags | names | |
|---|---|---|---|
"""
MSC = "https://github.com/matrix-org/matrix-spec-proposals/pull/"

# Endpoints in the definitions of the two APIs that policy servers serve.
OF_POLICY_SERVERS = {"askPolicyServerToSign", "getWellknownPolicy"}

# Routes that are no endpoint of the specification's API definitions, and why they are there. A
# pattern is matched with "METHOD PATH", in which each parameter of the path is `{}`.
REASONS = {
    r"\w+ /_matrix/client/unstable/org\.matrix\.msc3814\.v1/dehydrated_device(/\{\}/events)?": (
        "dehydrated devices ([MSC3814](https://github.com/matrix-org/matrix-spec-proposals/pull/3814))"
    ),
    r"\w+ /_matrix/client/unstable/uk\.tcpip\.msc4133/profile/\{\}/\{\}": (
        "fields of profiles, at the path before they were released, which clients use"
    ),
    r"GET /_matrix/client/unstable/uk\.half-shot\.msc2666/user/mutual_rooms": (
        "mutual rooms, at the path before they were released, which clients use"
    ),
    r"GET /_matrix/client/unstable/im\.nheko\.summary/(summary/\{\}|rooms/\{\}/summary)": (
        "summaries of rooms, at the paths before they were released, which clients use"
    ),
    r"GET /_matrix/client/(v1|unstable/org\.matrix\.msc4143)/rtc/transports": (
        "transports of [calls](calls.md)"
        " ([MSC4143](https://github.com/matrix-org/matrix-spec-proposals/pull/4143))"
    ),
    r"\w+ /_matrix/client/(v[13]|unstable/org\.matrix\.msc4140)/"
    r"(rooms/\{\}/delayed_event/\{\}/\{\}|delayed_events(/\{\}(/\w+)?)?)": (
        "[delayed events](calls.md)"
        " ([MSC4140](https://github.com/matrix-org/matrix-spec-proposals/pull/4140))"
    ),
    r"\w+ /_matrix/client/unstable/io\.element\.msc430[68]/"
    r"(rooms/\{\}/thread/\{\}/subscription|thread_subscriptions)": (
        "[subscriptions to threads](sync.md#subscriptions-to-threads), if they are switched on"
        " ([MSC4306](https://github.com/matrix-org/matrix-spec-proposals/pull/4306))"
    ),
    r"GET /_matrix/client/unstable/org\.matrix\.msc2965/auth_metadata": (
        "the metadata of the OAuth 2.0 API, at the path before it was released, which clients use"
    ),
    r"\w+ /_matrix/client/unstable/(io\.element\.msc4388|org\.matrix\.msc4108)/"
    r"rendezvous(/\{\})?": (
        "[signing in by a QR code](authentication.md#signing-in-by-a-qr-code)"
        " ([MSC4388](https://github.com/matrix-org/matrix-spec-proposals/pull/4388),"
        " [MSC4108](https://github.com/matrix-org/matrix-spec-proposals/pull/4108))"
    ),
    r"(GET|POST) /_matrix/oauth2/\w+": (
        f"the [OAuth 2.0 API]({SPEC}client-server-api/#oauth-20-api), whose paths are in the"
        " metadata"
    ),
    r"(GET|POST) /_matrix/account(/\w+)?": (
        f"[pages]({SPEC}client-server-api/#oauth-20-account-management) on which users sign in"
        " and manage their accounts"
    ),
    r"GET /": "the landing page, for people",
    r"GET /health": "tells a supervisor whether the server can do its work",
    r"GET /metrics": "figures for Prometheus",
    r"(GET|POST) /_matrix/client/v3/auth/(\{\}|m\.login\.sso)/fallback/web": (
        f"[pages of user-interactive authentication]({SPEC}client-server-api/#fallback), which the "
        "text describes outside of the API definitions"
    ),
    r"GET /_matrix/static/client/login/": (
        f"the [log-in page]({SPEC}client-server-api/#login-fallback) for clients that know no "
        "flow, which the text describes outside of the API definitions"
    ),
    r"(GET|POST) /_matrix/sso/.*": "[single sign-on](single-sign-on.md), for browsers",
    r"GET /_matrix/client/v3/login/cas/(redirect|ticket)": (
        "the old name of the redirect, for clients that know `m.login.cas`; and tickets of CAS that"
        " tests need, if they are accepted"
    ),
    r"(GET|POST) /_matrix/client/unstable/io\.homeserver/email/validate": (
        "the page behind the link of a mail that validates an address"
    ),
    r"(GET|POST) /_matrix/client/unstable/io\.homeserver/pushers/unsubscribe": (
        "the page by which mails about unread messages are ended without logging in"
    ),
    r"POST /_matrix/client/unstable/"
    r"(account/3pid/(un)?bind|keys/(device_signing|signatures)/upload)": (
        "the paths of these endpoints before they were released, which some clients use"
    ),
    r"POST /_matrix/client/unstable/com\.beeper\.backfill/rooms/\{\}/batch_send": (
        "[importing history](history-import.md), as bridges request it"
    ),
    r"POST /_matrix/client/(v4|unstable/org\.matrix\.simplified_msc3575)/sync": (
        "[simplified sliding sync](sync.md) (MSC4186)"
    ),
    r"GET /_matrix/client/(v3|unstable)/stream": "the [WebSocket transport](websocket.md)",
    r"GET /_matrix/client/unstable/fi.mau.as_sync": "the WebSocket of application services",
    r"POST /_matrix/client/v3/rooms/\{\}/(send|redact)/\{\}": (
        "sending and redacting without a transaction id, as an old version of the text had it and "
        "scripts still do"
    ),
    r"(GET|PUT) /_matrix/client/v3/rooms/\{\}/state/\{\}": "the empty state key, left out",
    r"DELETE /_matrix/client/v3/directory/list/appservice/\{\}/\{\}": (
        "removes a room from the directory of a network, as other servers have it for bridges"
    ),
    r"GET /_matrix/client/v3/pushrules/global/\{\}/": (
        "all rules of a kind, as an old version of the text had it"
    ),
    r"(GET|PUT) /_matrix/client/v3/pushrules/.*": (
        "responds with `M_INVALID_PARAM` to paths that name no push rule"
    ),
    r"(GET|POST) /_synapse/admin/v1/register": (
        "registration by shared secret, at the path that existing tools use"
    ),
    r"(POST|PUT) /_synapse/admin/v1/send_server_notice(/\{\})?": (
        "server notices, at the path that existing tools use"
    ),
    r"GET /_matrix/key/v2/server/\{\}": "the path with a key id, which older servers use",
    r"GET /_matrix/key/v2/query/\{\}/\{\}": "the path with a key id, which older servers use",
    r"PUT /_matrix/federation/v1/send_(join|leave)/\{\}/\{\}": "version 1, which older servers use",
    r"POST /_matrix/federation/v1/3pid/onbind": (
        "the method by which identity servers call it, as the Identity Service API names it"
    ),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of the specification; `section` is the file of its definition."""

    api: str
    section: str
    method: str
    path: str
    operation: str
    is_deprecated: bool

    @property
    def key(self) -> str:
        """The key that it shares with the route that serves it."""
        return key_of(self.method, self.path)

    @property
    def link(self) -> str:
        """Its address in the specification."""
        anchor = re.sub(r"[^\w-]", "", f"{self.method}{self.path}".lower())
        return f"{SPEC}{self.api}-api/#{anchor}"


class Table:
    """The endpoints of the specification, compared with the routes of the server."""

    def __init__(self, endpoints: Sequence[Endpoint], routes: Iterable[Route]) -> None:
        self.endpoints = endpoints
        self.routes = {key_of(route.method, route.path): route for route in routes}

    def status(self, endpoint: Endpoint) -> str:
        """One of `STATUSES`."""
        return "served" if endpoint.key in self.routes else "not yet"

    def misnamed(self) -> list[str]:
        """Routes whose handler has another name than the operation that it serves."""
        operations: dict[str, set[str]] = {}
        for endpoint in self.endpoints:
            operations.setdefault(endpoint.key, set()).add(endpoint.operation)
        return [
            f"{key}: {route.handler.__name__} serves {', '.join(sorted(operations[key]))}"
            for key, route in self.routes.items()
            if key in operations
            and _letters(route.handler.__name__) not in map(_letters, operations[key])
        ]

    def beyond(self) -> list[str]:
        """The keys of routes that are no endpoint of the specification."""
        known = {endpoint.key for endpoint in self.endpoints}
        return sorted((key for key in self.routes if key not in known), key=_by_path)


def key_of(method: str, path: str) -> str:
    """A method and a path, without the names of the path's parameters."""
    return f"{method} {re.sub(r'{[^}]*}', '{}', path)}"


def reason_for(key: str) -> str | None:
    """The reason for a route that is no endpoint of the specification; None if there is none."""
    found = (reason for pattern, reason in REASONS.items() if re.fullmatch(pattern, key))
    return next(found, None)


def spec_endpoints() -> list[Endpoint]:
    """The endpoints of the specification that a homeserver serves, in its order."""
    with (HERE / "spec_endpoints.tsv").open(encoding="utf-8", newline="") as file:
        return [
            Endpoint(
                row["api"],
                row["section"],
                row["method"],
                row["path"],
                row["operation"],
                row["deprecated"] == "yes",
            )
            for row in csv.DictReader(file, delimiter="\t")
            if row["operation"] not in OF_POLICY_SERVERS
        ]


def render(table: Table) -> str:
    """The text of docs/conformance.md."""
    parts = [INTRODUCTION, _summary(table)]
    for api, title in APIS.items():
        endpoints = [endpoint for endpoint in table.endpoints if endpoint.api == api]
        parts += [f"## {title}\n", _sections(table, endpoints), _endpoints(table, endpoints)]
    return "\n".join([*parts, BEYOND + _beyond(table), UNSTABLE + _proposals()])


def _summary(table: Table) -> str:
    lines = ["| API | endpoints | served | not yet |", "|---|---|---|---|"]
    for api, title in APIS.items():
        states = [table.status(each) for each in table.endpoints if each.api == api]
        counts = [states.count(state) for state in STATUSES]
        lines.append(f"| {title} | {len(states)} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


def _sections(table: Table, endpoints: Sequence[Endpoint]) -> str:
    """A row for each section: how many of its endpoints there are, and which are missing."""
    lines = ["| section | served | not yet |", "|---|---|---|"]
    for section in dict.fromkeys(endpoint.section for endpoint in endpoints):
        here = [endpoint for endpoint in endpoints if endpoint.section == section]
        served, missing = (
            [f"`{each.operation}`" for each in here if table.status(each) == status]
            for status in STATUSES
        )
        cells = [section, f"{len(served)} of {len(here)}", ", ".join(missing)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _endpoints(table: Table, endpoints: Sequence[Endpoint]) -> str:
    lines = ["| section | operation | endpoint | |", "|---|---|---|---|"]
    for each in endpoints:
        name = f"[`{each.operation}`]({each.link})"
        mark = " (deprecated)" if each.is_deprecated else ""
        place = f"`{each.method} {each.path}`{mark}"
        lines.append(f"| {each.section} | {name} | {place} | {table.status(each)} |")
    return "\n".join(lines) + "\n"


def _beyond(table: Table) -> str:
    """A row for each reason, with all endpoints that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for key in table.beyond():
        by_reason.setdefault(reason_for(key) or "", []).append(f"`{key}`")
    return "".join(f"| {', '.join(keys)} | {reason} |\n" for reason, keys in by_reason.items())


def _proposals() -> str:
    """A row for each proposal of which this server knows the names."""
    return "".join(f"| {' | '.join(_cells(each))} |\n" for each in PROPOSALS)


def _cells(proposal: Proposal) -> list[str]:
    number = f"[MSC{proposal.msc}]({MSC}{proposal.msc}): " if proposal.msc else ""
    flags = ", ".join(f"`{flag}`" for flag in proposal.flags)
    names = ", ".join(f"`{name}` for `{meaning}`" for name, meaning in proposal.names.items())
    state = f"specified in {proposal.specified}" if proposal.specified else ""
    return [f"{number}{proposal.subject}", flags, names, state]


def _by_path(key: str) -> list[str]:
    return key.split(" ")[::-1]


def _letters(name: str) -> str:
    """`setTyping` and `set_typing` are one name; so are `post3PIDs` and `post_3pids`."""
    return name.replace("_", "").lower()


def served_routes() -> list[Route]:
    """The routes of a server that runs for the moment, with all of its resources."""

    async def run(reactor: Any) -> list[Route]:
        server = Homeserver(settings, reactor)
        await server.start()
        try:
            return server.routes
        finally:
            await server.stop()

    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        # PostgreSQL does not run as root; where this does, its user has to reach the folder.
        Path(folder).chmod(0o711)
        settings, _ = parse_settings(SETTINGS.format(folder=msgspec.json.encode(folder).decode()))
        return run_in_reactor(run)


if __name__ == "__main__":
    text = render(Table(spec_endpoints(), served_routes()))
    Path("docs/conformance.md").write_text(text, encoding="utf-8")
