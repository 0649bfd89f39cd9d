// Users who never verified anything talk on all their devices, as most users do.

import { secondUrl } from "../sdk.mjs";
import { allTalk, anotherDevice, encryptedRoom, knowEachOther, newUser } from "./devices.mjs";

export async function chat() {
    const [alice, bob] = [await newUser("alice"), await newUser("bob", secondUrl)];
    const all = [alice, bob, await anotherDevice(alice), await anotherDevice(bob)];
    const roomId = await encryptedRoom(...all);
    await knowEachOther(...all);

    await allTalk(roomId, all, all);
}
