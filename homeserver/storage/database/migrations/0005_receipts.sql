-- How far each user has read in each room.
--
-- Rooms and members are numbers from `names`. `thread_id` is the event id of a thread's root, 'main' for
-- the timeline outside of threads, and empty for a receipt that concerns the whole room.
-- `event_position` is the event's place in the room's timeline, NULL where it has none or is not known
-- here; `position` is the receipt's place in the log; `ts` is milliseconds since the epoch.

CREATE TABLE receipts (
    room           int    NOT NULL,
    member         int    NOT NULL,
    receipt_type   text   NOT NULL,
    thread_id      text   NOT NULL,
    event_id       text   NOT NULL,
    event_position bigint,
    ts             bigint NOT NULL,
    position       bigint NOT NULL,
    PRIMARY KEY (room, member, receipt_type, thread_id)
);
CREATE INDEX receipts_position ON receipts (room, position);
