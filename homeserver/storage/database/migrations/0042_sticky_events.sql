-- Sticky events: those that members of a room get wherever their timelines begin, for an hour at most.
--
-- `position` is the place in the log from which on members get the event; null for one that was soft-failed, which is
-- checked again when a membership of its sender changes. `until_ms` is when it stops sticking, in ms since the epoch:
-- then the row is deleted.
CREATE TABLE sticky_events (
    event    bigint  PRIMARY KEY,
    room     integer NOT NULL,
    position bigint,
    until_ms bigint  NOT NULL
);
CREATE INDEX sticky_events_by_end ON sticky_events (until_ms);

-- For how long, in ms, an event that is sent later shall stick, and under which name its client says so.
ALTER TABLE delayed_events
    ADD COLUMN sticky_ms   integer,
    ADD COLUMN sticky_name text;

-- A destination that has just joined a room lacks only what sticks there: no `position`. `sticky_from` is the position
-- from which on it lacks sticky events.
ALTER TABLE outbox_rooms
    ALTER COLUMN position DROP NOT NULL,
    ADD COLUMN sticky_from bigint;
UPDATE outbox_rooms SET sticky_from = position;
ALTER TABLE outbox_rooms ALTER COLUMN sticky_from SET NOT NULL;
