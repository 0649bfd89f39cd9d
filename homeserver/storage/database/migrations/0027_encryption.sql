-- End-to-end encryption: keys of devices and users, lists of devices, messages to devices.

-- The server reads none of the contents: keys and messages are the JSON that clients uploaded.

-- Identity keys of the devices of local users, as uploaded, without signatures of other keys.
CREATE TABLE device_keys (
    user_id   text COLLATE "C",
    device_id text COLLATE "C",
    keys      bytea NOT NULL,
    PRIMARY KEY (user_id, device_id)
);

-- One-time keys that nobody has claimed yet, in the order of upload: `position` is that of the upload.
CREATE TABLE one_time_keys (
    user_id   text COLLATE "C",
    device_id text COLLATE "C",
    algorithm text COLLATE "C",
    position  bigint,
    key_id    text COLLATE "C",
    key       bytea NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, position, key_id)
);

-- The keys that are given out when the one-time keys of a device are used up.
CREATE TABLE fallback_keys (
    user_id   text COLLATE "C",
    device_id text COLLATE "C",
    algorithm text COLLATE "C",
    key_id    text COLLATE "C" NOT NULL,
    key       bytea   NOT NULL,
    used      boolean NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm)
);

-- Cross-signing keys of local and remote users; `usage` is `master`, `self_signing` or `user_signing`.
-- `position` is that at which a key was stored: a user's devices have to learn of a new user-signing
-- key, of which nobody else hears.
CREATE TABLE cross_signing_keys (
    user_id  text COLLATE "C",
    usage    text COLLATE "C",
    key      bytea  NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, usage)
);

-- Signatures that were uploaded apart from the key that they sign: by key `signing_key` of `signer`, of
-- the device or the cross-signing key `key_id` of `user_id`.
CREATE TABLE key_signatures (
    signer      text COLLATE "C",
    user_id     text COLLATE "C",
    key_id      text COLLATE "C",
    signing_key text COLLATE "C",
    signature   text   NOT NULL,
    position    bigint NOT NULL,
    PRIMARY KEY (signer, user_id, key_id, signing_key)
);
CREATE INDEX key_signatures_by_key ON key_signatures (user_id, key_id);

-- The last change of the device list of each local or remote user: its position in the log and, for
-- local users, what other servers are told of it. `previous_id` is the stream id of the change before.
CREATE TABLE device_lists (
    user_id     text COLLATE "C" PRIMARY KEY,
    position    bigint NOT NULL,
    stream_id   bigint NOT NULL,
    previous_id bigint,
    device_id   text
);
CREATE INDEX device_lists_by_position ON device_lists (position);

-- The device lists of remote users, as their servers gave them. One that is stale is fetched again
-- before it is used.
CREATE TABLE remote_device_lists (
    user_id   text COLLATE "C" PRIMARY KEY,
    stream_id bigint  NOT NULL,
    is_stale  boolean NOT NULL
);
CREATE TABLE remote_devices (
    user_id      text COLLATE "C",
    device_id    text COLLATE "C",
    display_name text,
    keys         bytea,
    PRIMARY KEY (user_id, device_id)
);

-- Messages to devices of local users, until the device has received them.
CREATE TABLE to_device_messages (
    user_id   text COLLATE "C",
    device_id text COLLATE "C",
    position  bigint,
    message   bytea NOT NULL,
    PRIMARY KEY (user_id, device_id, position)
);
CREATE INDEX to_device_messages_by_age ON to_device_messages USING brin (position);

-- Requests to send messages to devices, by a hash of their transaction ids, so that one that is
-- repeated sends nothing again.
CREATE TABLE to_device_transactions (
    user_id     text COLLATE "C",
    device_id   text COLLATE "C",
    transaction bytea,
    position    bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, transaction)
);
CREATE INDEX to_device_transactions_by_age ON to_device_transactions USING brin (position);

-- Messages to devices of remote users, until their server has them: the content of the EDU.
CREATE TABLE outgoing_to_device (
    destination text COLLATE "C",
    position    bigint,
    edu         bytea NOT NULL,
    PRIMARY KEY (destination, position)
);

-- Dehydrated devices: devices without a client, which receive keys while the user has no other device.
-- `device_data` is the encrypted device; the device itself is in `devices`, at most one of a user.
CREATE TABLE dehydrated_devices (
    user_id     text COLLATE "C" PRIMARY KEY,
    device_id   text COLLATE "C" NOT NULL,
    device_data bytea NOT NULL
);

-- Messages to devices that other servers sent, by the ids that those gave them, so that one that is sent
-- again is not delivered again.
CREATE TABLE to_device_received (
    origin     text COLLATE "C",
    message_id text COLLATE "C",
    position   bigint NOT NULL,
    PRIMARY KEY (origin, message_id)
);
CREATE INDEX to_device_received_by_age ON to_device_received USING brin (position);

-- Changes of the device lists of local users that another server does not have yet, as in `device_lists`.
-- For a server that is unavailable only the newest change of each user is kept.
CREATE TABLE device_list_outbox (
    destination text COLLATE "C",
    position    bigint,
    user_id     text COLLATE "C" NOT NULL,
    stream_id   bigint NOT NULL,
    previous_id bigint,
    device_id   text,
    PRIMARY KEY (destination, position)
);
CREATE INDEX device_list_outbox_by_user ON device_list_outbox (destination, user_id, position);

-- The lists that are fetched again after a start.
CREATE INDEX remote_device_lists_stale ON remote_device_lists (user_id) WHERE is_stale;
