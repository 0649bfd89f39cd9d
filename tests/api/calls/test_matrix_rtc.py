"""The transports of MatrixRTC, over the API."""

from tests.support.actors import CLIENT
from tests.support.server import ServerTestCase

PATHS = (
    CLIENT.replace("v3", "v1") + "/rtc/transports",
    "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
)
LIVEKIT = {"type": "livekit", "livekit_service_url": "https://rtc.example.org"}


class TransportTests(ServerTestCase):
    settings = {  # noqa: RUF012  # as in the base class
        "public_baseurl": "https://matrix.example.org",
        "matrix_rtc": {"transports": [LIVEKIT]},
    }

    async def test_users_and_guests_find_the_transports(self) -> None:
        """At both paths, and where clients looked for them before there was an endpoint."""
        for actor in (await self.register("alice"), await self.register_guest()):
            for path in PATHS:
                response = await actor.request("GET", path)
                self.assertEqual(response, {"rtc_transports": [LIVEKIT]})

        discovery = await self.anybody.request("GET", "/.well-known/matrix/client")
        self.assertEqual(discovery["org.matrix.msc4143.rtc_foci"], [LIVEKIT])
        attempt = self.anybody.request("GET", PATHS[0])
        await self.assert_refused("M_MISSING_TOKEN", attempt, 401)


class NoTransportTests(ServerTestCase):
    settings = {"public_baseurl": "https://matrix.example.org"}  # noqa: RUF012  # as above

    async def test_without_transports_the_list_is_empty(self) -> None:
        """A client then looks for others."""
        alice = await self.register("alice")

        self.assertEqual(await alice.request("GET", PATHS[0]), {"rtc_transports": []})
        discovery = await self.anybody.request("GET", "/.well-known/matrix/client")
        self.assertEqual(set(discovery), {"m.homeserver"})
