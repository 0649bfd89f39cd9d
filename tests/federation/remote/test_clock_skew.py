"""Servers whose clocks are wrong by an hour: users notice only strange times of day.

Spec: https://spec.matrix.org/v1.19/server-server-api/#publishing-keys
"""

from collections.abc import Iterator
from itertools import product

import pytest

from tests.federation.convergence import agree
from tests.federation.shared_rooms import exchange_messages, shared_room
from tests.support.actors import bodies
from tests.support.peer import is_peer_installed
from tests.support.reactor import run
from tests.support.sites import LOCAL, PEER, Scene, Sites

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

HOUR = 3600.0
HALF_AN_HOUR_MS = 1_800_000


@pytest.fixture(params=product((LOCAL, PEER), (HOUR, -HOUR)), ids="{0[0]}{0[1]:+.0f}".format)
def wrong(request: pytest.FixtureRequest, sites: Sites) -> Iterator[Scene]:
    """Alice's server with the right time, and Bob's, which is an hour ahead or behind."""
    kind, seconds = request.param
    if kind == PEER and not is_peer_installed():
        pytest.skip("the peer is not installed: make peer")
    scene = Scene(sites.get(kind, 0), sites.skewed(LOCAL, seconds), sites.authority)
    try:
        yield scene
    finally:
        run(scene.close())


async def test_people_talk_across_a_wrong_clock(wrong: Scene) -> None:
    """Keys hold, nothing comes too early or too late, and both sides have one order."""
    alice, bob = await wrong.alice_and_bob()
    room = await shared_room(alice, bob)

    for number in range(3):
        of_alice = await bob.hears(room, await alice.say(room, f"alice {number}"))
        of_bob = await alice.hears(room, await bob.say(room, f"bob {number}"))
        apart = abs(of_bob["origin_server_ts"] - of_alice["origin_server_ts"])
        assert apart > HALF_AN_HOUR_MS

    said = bodies(await agree(room, alice, bob))
    assert said == [f"{name} {number}" for number in range(3) for name in ("alice", "bob")]


async def test_edus_are_sent_across_a_wrong_clock(wrong: Scene) -> None:
    """Typing, receipts and presence are current, whatever the sender's clock says."""
    alice, bob = await wrong.alice_and_bob()
    room = await shared_room(alice, bob)

    for one, other in ((alice, bob), (bob, alice)):
        await one.type(room)
        await other.sees_typing(room, one)
        await one.type(room, False)
        await other.sees_typing(room)
        said = await one.say(room, "read this")
        await other.hears(room, said)
        await other.read(room, said)
        await one.sees_receipt(room, said, other)
        await one.set_presence("online", status_msg="gardening")
        seen = await other.sees_presence(one, presence="online", status_msg="gardening")
        assert seen["last_active_ago"] < HALF_AN_HOUR_MS


async def test_a_cut_heals_across_a_wrong_clock(wrong: Scene) -> None:
    """The back-off of a server does not depend on the clock of the other side."""
    alice, bob = await wrong.alice_and_bob()
    room = await shared_room(alice, bob)

    wrong.cut()
    await alice.say(room, "is anybody there")
    await bob.say(room, "hello")
    await wrong.heal()
    await exchange_messages(room, alice, bob)

    assert {"is anybody there", "hello"} <= set(bodies(await agree(room, alice, bob)))
