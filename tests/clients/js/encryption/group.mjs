// In a group of everyday size some write and all others read; one joins later.

import assert from "node:assert/strict";
import { baseUrl, secondUrl, until } from "../sdk.mjs";
import {
    UNREADABLE,
    allTalk,
    encryptedRoom,
    join,
    knownDevices,
    newUser,
    readable,
    seesMembers,
} from "./devices.mjs";

const MEMBERS = 20;

export async function group() {
    const urls = [baseUrl, secondUrl];
    const members = await Promise.all(
        Array.from({ length: MEMBERS }, (_, number) => newUser("member", urls[number % 2])),
    );
    const roomId = await encryptedRoom(...members);
    const writers = members.slice(0, 2);
    const said = await allTalk(roomId, writers, members);

    const late = await newUser("late", secondUrl);
    await members[0].invite(roomId, late.getUserId());
    await join(late, roomId);
    for (const member of members) await seesMembers(member, roomId, MEMBERS + 1);
    for (const writer of writers) assert.equal((await knownDevices(writer, late.getUserId())).length, 1);
    const before = said.length;
    await allTalk(roomId, writers, members, said);

    await until(() => readable(late, roomId).slice(-writers.length).every((each) => each !== UNREADABLE));
    const shown = readable(late, roomId);
    assert.deepEqual(shown.slice(-writers.length), said.slice(before));
    assert(shown.slice(0, -writers.length).every((each) => each === UNREADABLE), `${shown}`);
}
