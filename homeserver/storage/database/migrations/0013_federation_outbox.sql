-- What other servers have still to be told.
--
-- Everything up to `outbox_position` was either received by its destinations, or is noted in
-- `outbox_rooms`: since which position a destination that could not be reached lacks events of a
-- room. Once it can be, it gets the newest event of each room, and asks for what is between.

CREATE TABLE outbox_position (
    singleton bool  PRIMARY KEY DEFAULT true CHECK (singleton),
    position bigint NOT NULL
);

CREATE TABLE outbox_rooms (
    destination text   NOT NULL,
    room        int    NOT NULL,
    position    bigint NOT NULL,
    PRIMARY KEY (destination, room)
);
