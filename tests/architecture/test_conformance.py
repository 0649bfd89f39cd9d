"""The page of served endpoints: current, complete, and with the names of the specification."""

import re

from homeserver.protocol.proposals.unstable_names import PROPOSALS
from homeserver.web.routes import Route
from tests.architecture.source import TOP
from tests.support.server import ServerTestCase
from tools.conformance import REASONS, Table, key_of, reason_for, render, spec_endpoints


def one_more(table: Table, method: str, path: str) -> Table:
    """The same with one more route, whose handler is `one_more`."""
    return Table(table.endpoints, [*table.routes.values(), Route(method, path, one_more)])


class ConformanceTests(ServerTestCase):
    settings = {  # noqa: RUF012  # never changed
        "listeners": [
            {
                "port": 0,
                "bind": "127.0.0.1",
                "resources": ["client", "federation", "health", "metrics"],
            }
        ],
        "registration": {"shared_secret": "a secret of this test"},
        "url_previews": {"enabled": True},
        "public_baseurl": "https://matrix.example.org",
        "oauth": {"enabled": True},
        "single_sign_on": {
            "providers": [
                {"kind": "cas", "id": "cas", "name": "CAS", "server_url": "http://cas.example"}
            ]
        },
    }

    async def setUp(self) -> None:
        await super().setUp()
        self.table = Table(spec_endpoints(), self.server.routes)

    def test_page_is_current(self) -> None:
        """docs/conformance.md lists the endpoints that are served (make conformance)."""
        page = (TOP / "docs" / "conformance.md").read_text(encoding="utf-8")

        self.assertEqual(page, render(self.table))

    def test_handlers_have_the_names_of_their_operations(self) -> None:
        """A search for an operation of the specification ends at the code that serves it."""
        self.assertEqual(self.table.misnamed(), [])

        # The same check sees a handler with another name.
        wrong = one_more(self.table, "POST", "/_matrix/client/v3/keys/upload").misnamed()
        self.assertEqual(wrong, ["POST /_matrix/client/v3/keys/upload: one_more serves uploadKeys"])

    def test_every_other_endpoint_has_a_reason(self) -> None:
        """Endpoints beyond the specification are few, and each is there on purpose."""
        self.assertEqual([key for key in self.table.beyond() if reason_for(key) is None], [])

        more = one_more(self.table, "GET", "/_matrix/client/v3/unheard_of/{name}").beyond()
        self.assertEqual(
            [key for key in more if reason_for(key) is None],
            ["GET /_matrix/client/v3/unheard_of/{}"],
        )

    def test_every_reason_is_of_an_endpoint(self) -> None:
        """A reason whose endpoint was removed is removed with it."""
        keys = self.table.beyond()

        idle = [
            pattern for pattern in REASONS if not any(re.fullmatch(pattern, key) for key in keys)
        ]

        self.assertEqual(idle, [])

    async def test_every_flag_has_a_served_meaning(self) -> None:
        """A client that finds a flag finds the endpoints that the proposal promises."""
        response = await self.anybody.request("GET", "/_matrix/client/versions")
        by_flag = {flag: proposal for proposal in PROPOSALS for flag in proposal.flags}
        served = {key_of(route.method, route.path) for route in self.server.routes}

        self.assertLessEqual(set(response["unstable_features"]), set(by_flag))
        for proposal in PROPOSALS:
            with self.subTest(proposal.subject):
                promised = {key_of(*each.split(" ", 1)) for each in proposal.endpoints}
                self.assertLessEqual(promised, served)
                if proposal.specified is not None:
                    self.assertIn(proposal.specified, response["versions"])

    def test_no_flag_belongs_to_two_proposals(self) -> None:
        """Each name has one meaning."""
        flags = [flag for proposal in PROPOSALS for flag in proposal.flags]
        names = [name for proposal in PROPOSALS for name in proposal.names]

        self.assertEqual(len(flags + names), len({*flags, *names}))

    def test_endpoints_of_the_specification_are_listed_once(self) -> None:
        """A count that has an endpoint twice says more than is true."""
        endpoints = [(each.key, each.operation) for each in self.table.endpoints]

        self.assertEqual(len(endpoints), len(set(endpoints)))
        self.assertIn((key_of("GET", "/_matrix/client/v3/sync"), "sync"), endpoints)
