-- How far each reader of the log has come, so that a crash loses none of its work.

-- Everything up to `position` was handled by the reader in a shard. The shard -1 stands for all those
-- that have no row of their own: where one process owns all shards, each reader has one row.
CREATE TABLE reader_positions (
    reader   text,
    shard    smallint CHECK (shard BETWEEN -1 AND 1023),
    position bigint NOT NULL,
    PRIMARY KEY (reader, shard)
);
INSERT INTO reader_positions
SELECT 'mentions', -1, value::bigint FROM server_state WHERE key = 'mentions_position';
DELETE FROM server_state WHERE key = 'mentions_position';
INSERT INTO reader_positions SELECT 'federation_sender', -1, position FROM outbox_position;
DROP TABLE outbox_position;

-- A reader that is behind reads what happened in all rooms, in the order of the log.
CREATE INDEX events_by_position ON events (position) WHERE position > 0;
CREATE INDEX current_states_by_position ON current_states (position);
