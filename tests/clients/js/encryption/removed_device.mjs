// A phone is stolen: its owner removes it, and what is written afterwards is not for it.

import assert from "node:assert/strict";
import { eventually, secondUrl } from "../sdk.mjs";
import {
    anotherDevice,
    encryptedRoom,
    knowEachOther,
    knownDevices,
    newUser,
    shows,
    withPassword,
} from "./devices.mjs";

export async function removed_device() {
    const sent = [];
    const fetchFn = (resource, options) => {
        if (`${resource}`.includes("/sendToDevice/m.room.encrypted/")) sent.push(JSON.parse(options.body));
        return fetch(resource, options);
    };
    const [alice, bob] = [await newUser("alice", undefined, { fetchFn }), await newUser("bob", secondUrl)];
    const stolen = await anotherDevice(bob);
    const roomId = await encryptedRoom(alice, bob, stolen);
    await knowEachOther(alice, bob, stolen);
    await alice.sendTextMessage(roomId, "before");
    for (const device of [bob, stolen]) await shows(device, roomId, "before");
    assert.deepEqual(devicesOf(bob, sent), [bob, stolen].map((each) => each.getDeviceId()).sort());

    sent.length = 0;
    const removed = [stolen.getDeviceId()];
    await withPassword(bob)((auth) => bob.deleteMultipleDevices(removed, auth ?? undefined));
    await eventually(async () =>
        assert.deepEqual(await knownDevices(alice, bob.getUserId()), [bob.getDeviceId()]),
    );
    await alice.sendTextMessage(roomId, "after");
    await shows(bob, roomId, "before", "after");

    assert.deepEqual(devicesOf(bob, sent), [bob.getDeviceId()]);
    await assert.rejects(stolen.whoami(), (error) => error.errcode === "M_UNKNOWN_TOKEN");
}

function devicesOf(client, sent) {
    const devices = sent.flatMap(({ messages }) => Object.keys(messages[client.getUserId()] ?? {}));
    return [...new Set(devices)].sort();
}
