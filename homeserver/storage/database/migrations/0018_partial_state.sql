-- Rooms that were entered without their members, which other servers are still being asked for.
--
-- `event_id` is the join by which the room was entered; `servers` is a JSON list of those that were
-- in the room before it. Once the state is whole, `whole_at` is the position from which on it is
-- shown so: devices that were kept from the room until then get all of it. It is -1 where everybody
-- left before: then nobody here knows who is in the room.

CREATE TABLE partial_rooms (
    room     int    PRIMARY KEY,
    event_id text   NOT NULL,
    servers  text   NOT NULL,
    whole_at bigint
);
CREATE INDEX partial_rooms_unfinished ON partial_rooms (room) WHERE whole_at IS NULL;
