-- What the event graph needs before other servers may write into it.

-- `state_before` is NULL for an outlier: an event that is known because others cite it, and whose
-- place in the graph is not. `rejected` and `soft_failed` name the rule that an event broke; such
-- events have no place in a timeline. Events that were fetched for the room's past have a position
-- below zero: behind everything that a sync has shown.
ALTER TABLE events ALTER COLUMN state_before DROP NOT NULL;
ALTER TABLE events ADD COLUMN rejected text;
ALTER TABLE events ADD COLUMN soft_failed text;

-- In room versions 1 and 2 servers choose event ids, and may choose the same in two rooms.
DROP INDEX events_event_id;
CREATE UNIQUE INDEX events_event_id ON events (event_id, room);

-- The root of a room's current state from a position on, where it is not simply the state after
-- the event at this position: because the graph is forked there, or because state was resolved anew.
CREATE TABLE current_states (
    room     int    NOT NULL,
    position bigint NOT NULL,
    root     bytea  NOT NULL,
    PRIMARY KEY (room, position)
);

-- Events that timeline events follow, and that are not here: where the room's past can be asked for.
-- `depth` is that of the event that follows.
CREATE TABLE backward_extremities (
    room     int    NOT NULL,
    event_id text   NOT NULL,
    depth    bigint NOT NULL,
    PRIMARY KEY (room, event_id)
);

-- Redactions of events that have not arrived.
CREATE TABLE early_redactions (
    room      int    NOT NULL,
    target    text   NOT NULL,
    redaction bigint NOT NULL,
    PRIMARY KEY (room, target, redaction)
);
