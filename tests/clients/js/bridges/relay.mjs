// A bridge to a network whose people write lines of JSON to a TCP server: {"nick", "text"}.
//
// Its users and rooms come into being when somebody asks for them: ghosts begin with @_tcp_, rooms
// with #_tcp_. What is said in such a room is a line for the network, and the other way around.

import { createInterface } from "node:readline";
import { connect } from "node:net";
import { readFileSync } from "node:fs";

import appserviceBridge from "matrix-appservice-bridge";

const { AppServiceRegistration, Bridge } = appserviceBridge;
const { url, domain, port, networkPort, registration } = JSON.parse(
    readFileSync(process.argv[2], "utf8"),
);
const network = connect(networkPort, "127.0.0.1");
const rooms = [];

const bridge = new Bridge({
    homeserverUrl: url,
    domain,
    registration: AppServiceRegistration.fromObject(registration),
    disableStores: true,
    controller: {
        onUserQuery: (user) => ({ name: `${user.localpart.slice("_tcp_".length)} (TCP)` }),
        onAliasQuery: (_, aliasLocalpart) => ({
            creationOpts: {
                preset: "public_chat",
                room_alias_name: aliasLocalpart,
                power_level_content_override: { invite: 0 },
            },
        }),
        onAliasQueried: (_, roomId) => rooms.push(roomId),
        onEvent: (request) => {
            const event = request.getData();
            const isGhost = event.sender.startsWith("@_tcp_");
            if (event.type === "m.room.message" && !isGhost) {
                network.write(`${JSON.stringify({ nick: event.sender, text: event.content.body })}\n`);
            } else if (event.type === "m.room.member" && event.content.membership === "invite") {
                if (event.state_key.startsWith("@_tcp_")) {
                    return bridge.getIntent(event.state_key).join(event.room_id);
                }
            }
            return undefined;
        },
    },
});

await bridge.initialise();
await bridge.listen(port, "127.0.0.1");
console.log("listening");

for await (const line of createInterface({ input: network })) {
    const { nick, text } = JSON.parse(line);
    for (const roomId of rooms) {
        await bridge.getIntent(`@_tcp_${nick}:${domain}`).sendText(roomId, text);
    }
}
process.exit(0);
