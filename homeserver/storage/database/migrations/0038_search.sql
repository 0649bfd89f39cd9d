-- The index of the server-side search: the texts of messages, room names and topics as words.

-- One row for each event that can be found. `key` says what its text is (0 a message, 1 a name,
-- 2 a topic). `sent_at` sorts events of all rooms by time, on the scale of the log's positions. `words`
-- has the tokens of the text, and places of those that it has several times.
CREATE TABLE search_entries (
    event   bigint PRIMARY KEY,
    room    int      NOT NULL,
    sender  int      NOT NULL,
    key     smallint NOT NULL,
    has_url boolean  NOT NULL,
    sent_at bigint   NOT NULL,
    words   tsvector NOT NULL
);
CREATE INDEX search_entries_by_time ON search_entries (room, sent_at);
-- New rows wait in a list, which is merged into the index as a whole; a search reads the list, too.
CREATE INDEX search_entries_words ON search_entries USING gin (words)
  WITH (fastupdate = on, gin_pending_list_limit = 1024);

-- Events that are stored without a place in a timeline are indexed in the order of the log, too.
CREATE INDEX events_backfilled ON events (COALESCE(stored_at, event)) WHERE position < 0;
