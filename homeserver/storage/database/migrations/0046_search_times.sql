-- A search in more blocks than can be looked at within a second goes through them in parts, each of
-- as many as can. This index says where a part ends.

CREATE INDEX search_blocks_time ON search_blocks (room, last_at);
