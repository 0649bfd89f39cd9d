-- Messages that expire at a time, and rooms that nobody may join.

-- The events whose content is deleted at the time `due`, in ms. An event has no row after that.
CREATE TABLE expiring_events (
    event bigint  PRIMARY KEY,
    room  integer NOT NULL,
    due   bigint  NOT NULL
);
CREATE INDEX expiring_events_by_due ON expiring_events (due);

-- The rooms that have, or had, an event of type `m.room.retention` in their state.
CREATE TABLE retention_rooms (
    room integer PRIMARY KEY
);
INSERT INTO retention_rooms
SELECT DISTINCT room FROM events
 WHERE type = (SELECT nid FROM names WHERE name = 'm.room.retention') AND state_key IS NOT NULL;

-- Rooms, by id, that no user of this server may join; in ms.
CREATE TABLE blocked_rooms (
    room_id    text   PRIMARY KEY,
    blocked_at bigint NOT NULL
);
