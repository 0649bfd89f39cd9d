"""Third-party invites that are redeemed on another server, of any implementation.

Spec: https://spec.matrix.org/v1.19/server-server-api/#third-party-invites
"""

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support.actors import Client
from tests.support.identity_server import IdentityServer
from tests.support.reactor import run
from tests.support.sites import LOCAL, Scene, Sites

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

ON_BIND = "/_matrix/federation/v1/3pid/onbind"


@pytest.fixture
def identity(sites: Sites) -> Iterator[IdentityServer]:
    """An identity server, running."""
    server = IdentityServer(sites.authority)
    try:
        yield server
    finally:
        run(server.stop())


async def test_an_invited_address_leads_its_owner_into_the_room(
    scene: Scene, identity: IdentityServer
) -> None:
    """A user who publishes the address on another server is invited there, and joins."""
    if scene.first.kind != LOCAL:
        pytest.skip("the peer does not speak to identity servers of tests")
    alice, bob = await scene.alice_and_bob()
    room = await alice.create_room(name="Garden")
    address = {
        "id_server": identity.name,
        "id_access_token": "swordfish",
        "medium": "email",
        "address": "bob@example.com",
    }
    await alice.post(f"/rooms/{quote(room)}/invite", address)
    there = Client(bob._http, bob.url)

    body = identity.notification("email", "bob@example.com", bob.user_id)
    await there.request("POST", ON_BIND, body)

    await bob.becomes(room, "invite")
    await bob.join(room)
    await alice.sees_member(room, bob, "join")
