"""Rate limits over the API: what is limited, and for whom."""

from typing import Any, ClassVar
from urllib.parse import quote

from homeserver.config.sections.limits import RateLimitSettings
from tests.fuzz.routes import all_routes
from tests.support.actors import CLIENT, Actor
from tests.support.refused import Refused
from tests.support.server import ServerTestCase

# Who logs out must always be able to; administrators are few, and trusted; sliding sync only reads,
# and what it keeps of a device is bounded; requests for tokens are counted in their handler, whose
# error does not end the session of a client (tests/api/oauth/test_registration.py).
FREE = {
    "/logout",
    "/logout/all",
    "/account/sign_out",
    "/admin/",
    "/v4/sync",
    "/org.matrix.simplified_msc3575/sync",
    "/oauth2/token",
    "/oauth2/revoke",
}


class RateLimitTests(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "rate_limits": {
            "settings": {"per_second": 0.001, "burst": 2},
            "users": [
                {"user_id": "@bot:example.org", "per_second": 0.001, "burst": 4},
                {"user_id": "@bridge:example.org", "unlimited": True},
            ],
        }
    }

    async def allowed(self, actor: Actor) -> int:
        """The number of ten changes of account data that are allowed."""
        for number in range(10):
            try:
                await actor.put(f"/user/{quote(actor.user_id)}/account_data/org.example.x", {})
            except Refused as refused:
                self.assertEqual(refused.status, 429)
                self.assertEqual(refused.body["errcode"], "M_LIMIT_EXCEEDED")
                return number
        return 10

    async def test_users_are_limited_each_for_themselves(self) -> None:
        """One client that runs wild does not take the server away from others."""
        alice, bob = await self.register("alice"), await self.register("bob")

        self.assertEqual([await self.allowed(alice), await self.allowed(bob)], [2, 2])

    async def test_named_users_have_rates_of_their_own(self) -> None:
        """A bot may write as much as the administrator trusts it with."""
        bot, bridge = await self.register("bot"), await self.register("bridge")

        self.assertEqual([await self.allowed(bot), await self.allowed(bridge)], [4, 10])


class DefaultRateTests(ServerTestCase):
    settings: ClassVar[dict[str, Any]] = {"rate_limits": {}}

    async def test_rooms_of_a_space_are_looked_up_one_by_one(self) -> None:
        """Clients that show a space, and rooms that messages link to, ask once for each room."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True, name="Shown")
        v1 = CLIENT.replace("v3", "v1")
        shown = set()

        for _ in range(60):
            path = f"{v1}/rooms/{quote(room)}/hierarchy"
            page = await alice.request("GET", path, query={"limit": 1, "max_depth": 1})
            summary = await alice.request("GET", f"{v1}/room_summary/{quote(room)}")
            shown |= {page["rooms"][0]["name"], summary["name"]}

        self.assertEqual(shown, {"Shown"})

    async def test_people_with_one_address_register(self) -> None:
        """Clients ask what is needed whenever they show the form, also where nobody registers."""
        for _ in range(30):
            with self.assertRaises(Refused) as refused:
                await self.anybody.post("/register", {})
            self.assertEqual(refused.exception.status, 401)

        names = [(await self.register(f"user{number}")).user_id for number in range(8)]

        self.assertEqual(len(set(names)), 8)

    async def test_accounts_of_one_address_are_limited(self) -> None:
        """Nobody fills the server with accounts, or with guests."""
        for number in range(5):
            await self.register(f"user{number}")
            await self.register_guest()

        await self.assert_refused("M_LIMIT_EXCEEDED", self.register("another"), 429)
        await self.assert_refused("M_LIMIT_EXCEEDED", self.register_guest(), 429)

    async def test_an_album_is_uploaded_at_once(self) -> None:
        """Clients upload a hundred pictures, each with its thumbnail, as fast as they can."""
        alice = await self.register("alice")
        path = CLIENT.replace("client", "media") + "/upload"

        uploaded = [await alice.request("POST", path, b"picture") for _ in range(200)]

        self.assertEqual(len({one["content_uri"] for one in uploaded}), 200)


def test_all_changes_are_limited() -> None:
    """No endpoint lets a client fill the database."""
    actions = RateLimitSettings().actions()

    for route in all_routes():
        is_free = any(part in route.path for part in FREE)
        if route.method != "GET" and not is_free and "refuse" not in route.handler.__name__:
            assert route.limit is not None, f"{route.method} {route.path}"
        assert route.limit is None or route.limit in actions, f"{route.method} {route.path}"
