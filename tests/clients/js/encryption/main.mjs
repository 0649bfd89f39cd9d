// Encrypted scenarios with matrix-js-sdk: `node encryption/main.mjs FIRST_URL SCENARIO [SECOND_URL]`.
//
// Its crypto is that of Element Web, matrix-sdk-crypto compiled to WebAssembly. Each scenario registers
// its own accounts at both servers, asserts what users would see, and ends with exit status 0.

import { runFlow } from "../sdk.mjs";
import { backlog } from "./backlog.mjs";
import { chat } from "./chat.mjs";
import { fallback_key } from "./fallback_key.mjs";
import { group } from "./group.mjs";
import { key_backup } from "./key_backup.mjs";
import { removed_device } from "./removed_device.mjs";
import { verification } from "./verification.mjs";

await runFlow({
    chat,
    group,
    verification,
    removed_device,
    key_backup,
    fallback_key,
    backlog,
});
