// Users with two devices each verify their devices and one another, and talk.

import { secondUrl } from "../sdk.mjs";
import {
    allTalk,
    anotherDevice,
    compareEmoji,
    encryptedRoom,
    knowEachOther,
    newUser,
    nextRequest,
    setUpKeys,
    trusts,
    warnsOfNothing,
} from "./devices.mjs";

export async function verification() {
    const [alice, bob] = [await newUser("alice"), await newUser("bob", secondUrl)];
    await setUpKeys(alice);
    await setUpKeys(bob);
    const laptops = [await verifiedLaptop(alice), await verifiedLaptop(bob)];
    const all = [alice, bob, ...laptops];
    const roomId = await encryptedRoom(alice, bob, ...laptops);
    await knowEachOther(...all);

    const asked = nextRequest(bob);
    const request = await alice.getCrypto().requestVerificationDM(bob.getUserId(), roomId);
    await compareEmoji(request, await asked);

    // Each needed to meet only one: signatures vouch for the other devices.
    for (const client of all) for (const other of all) await trusts(client, other);
    await allTalk(roomId, all, all);
    for (const client of all) await warnsOfNothing(client, roomId);
}

async function verifiedLaptop(phone) {
    const laptop = await anotherDevice(phone);
    const asked = nextRequest(phone);
    const request = await laptop.getCrypto().requestOwnUserVerification();
    await compareEmoji(request, await asked);
    await trusts(laptop, phone);
    await trusts(phone, laptop);
    return laptop;
}
