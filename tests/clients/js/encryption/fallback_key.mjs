// A device is offline for so long that others use up its one-time keys: its fallback key remains.

import assert from "node:assert/strict";
import { Method } from "matrix-js-sdk";
import { eventually, secondUrl } from "../sdk.mjs";
import { encryptedRoom, knowEachOther, network, newUser, shows } from "./devices.mjs";

const ALGORITHM = "signed_curve25519";
const MOST = 200; // a client has fewer one-time keys at the server

export async function fallback_key() {
    const wires = network();
    const [alice, bob] = [await newUser("alice"), await newUser("bob", secondUrl, wires)];
    const roomId = await encryptedRoom(alice, bob);
    await knowEachOther(alice, bob);
    // Bob's client uploads its keys after its first sync.
    await eventually(async () => assert(!(await claim(alice, bob)).fallback));
    wires.isCut = true;

    const claimed = [];
    while (!claimed.at(-1)?.fallback) {
        claimed.push(await claim(alice, bob));
        assert(claimed.length < MOST, "no fallback key");
    }
    const keys = claimed.map(({ key }) => key);
    assert.equal(new Set(keys).size, keys.length, "a key was given out twice");
    await alice.sendTextMessage(roomId, "are you there?");
    wires.isCut = false;
    bob.retryImmediately();

    await shows(bob, roomId, "are you there?");
    // Bob's client makes new keys when it learns that none are left.
    await eventually(async () => assert(!(await claim(alice, bob)).fallback));
}

async function claim(client, other) {
    const [userId, deviceId] = [other.getUserId(), other.getDeviceId()];
    const body = { one_time_keys: { [userId]: { [deviceId]: ALGORITHM } } };
    const answer = await client.http.authedRequest(Method.Post, "/keys/claim", undefined, body);
    const [key] = Object.values(answer.one_time_keys[userId][deviceId]);
    return key;
}
