-- The search index without words: a few numbers for each message, and one row for many messages.

-- The rows with words are not brought over: a background job makes the new ones from the events.
DROP TABLE search_entries;
DELETE FROM reader_positions WHERE reader = 'search_index';

-- Events of one room that follow each other: their numbers and times are between those given, on the
-- scale of the log's positions. `signature` stands for the words of all of them
-- (homeserver/protocol/search/signatures.py), `entries` has what there is of each
-- (homeserver/search/index_entries.py).
CREATE TABLE search_blocks (
    room        int    NOT NULL,
    first_event bigint NOT NULL,
    last_event  bigint NOT NULL,
    first_at    bigint NOT NULL,
    last_at     bigint NOT NULL,
    signature   bytea  NOT NULL,
    entries     bytea  NOT NULL,
    PRIMARY KEY (room, last_event)
);
-- A search goes through signatures, and reads few entries. Neither can be compressed.
ALTER TABLE search_blocks
    ALTER COLUMN signature SET STORAGE MAIN,
    ALTER COLUMN entries SET STORAGE EXTERNAL;

-- Events that were purged, and may be in the index.
CREATE TABLE search_removals (
    event bigint PRIMARY KEY
);
