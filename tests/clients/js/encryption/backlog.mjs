// A laptop was closed for a week: more keys wait for it than fit into one response.

import { secondUrl, until } from "../sdk.mjs";
import {
    anotherDevice,
    encryptedRoom,
    knowEachOther,
    network,
    newUser,
    readable,
    shows,
} from "./devices.mjs";

const MESSAGES = 110;

export async function backlog() {
    const wires = network();
    const [alice, bob] = [await newUser("alice"), await newUser("bob", secondUrl, wires)];
    const phone = await anotherDevice(bob);
    const roomId = await encryptedRoom(alice, bob, phone);
    await knowEachOther(alice, bob, phone);
    wires.isCut = true;

    const said = [];
    for (let number = 0; number < MESSAGES; number++) {
        // Each is under a key of its own.
        await alice.getCrypto().forceDiscardSession(roomId);
        said.push(`${number}`);
        await alice.sendTextMessage(roomId, said.at(-1));
    }
    await shows(phone, roomId, ...said);
    wires.isCut = false;
    bob.retryImmediately();
    await until(() => readable(bob, roomId).includes(said.at(-1)));
    // As a user who scrolls up to where they had read.
    while (!readable(bob, roomId).includes(said[0])) await bob.scrollback(bob.getRoom(roomId), 50);

    await shows(bob, roomId, ...said);
}
