// Encrypted scenarios with matrix-js-sdk: `node encryption/main.mjs FIRST_URL SCENARIO [SECOND_URL]`.
//
// Its crypto is that of Element Web, matrix-sdk-crypto compiled to WebAssembly. Each scenario registers
// its own accounts at both servers, asserts what users would see, and ends with exit status 0.

import { clients, flowName } from "../sdk.mjs";
import { backlog } from "./backlog.mjs";
import { chat } from "./chat.mjs";
import { fallback_key } from "./fallback_key.mjs";
import { group } from "./group.mjs";
import { key_backup } from "./key_backup.mjs";
import { removed_device } from "./removed_device.mjs";
import { verification } from "./verification.mjs";

const scenarios = {
    chat,
    group,
    verification,
    removed_device,
    key_backup,
    fallback_key,
    backlog,
};

if (flowName === "--list") {
    console.log(Object.keys(scenarios).join("\n"));
} else {
    try {
        await scenarios[flowName]();
    } catch (error) {
        console.error(error);
        process.exitCode = 1;
    }
    for (const client of clients) client.stopClient();
    process.exit();
}
