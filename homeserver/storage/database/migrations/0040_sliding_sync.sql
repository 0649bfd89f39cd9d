-- Sliding sync: what the lists of rooms are filtered by, and the connections of devices.
--
-- `room_type` is '' for a room without a type. Both columns are null for rooms that are older than the
-- columns, until a list needs them.
ALTER TABLE rooms ADD COLUMN room_type text;
ALTER TABLE rooms ADD COLUMN is_encrypted boolean;

-- `sent` is what the device was sent over the connection (MessagePack). It is written a moment after
-- the response: a device whose `pos` it does not have begins again. Rows of devices that are gone are
-- deleted at the start.
CREATE TABLE sliding_sync_connections (
    user_id   text   NOT NULL,
    device_id text   NOT NULL,
    conn_id   text   NOT NULL,
    sent      bytea  NOT NULL,
    saved_ms  bigint NOT NULL,
    PRIMARY KEY (user_id, device_id, conn_id)
) WITH (fillfactor = 70);
