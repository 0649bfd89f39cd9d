-- Rooms, their events and aliases, and who is in them.
--
-- Rooms, users, event types and state keys are numbers from `names`. An event's number is the log
-- position at which it was first stored; `position` is its place in the timeline that clients see,
-- NULL for an event that is known but not part of it.

CREATE TABLE rooms (
    room      int  PRIMARY KEY,
    version   text NOT NULL,
    creator   int  NOT NULL,
    published boolean NOT NULL DEFAULT false
);
CREATE INDEX rooms_published ON rooms (room) WHERE published;

-- `state_before` is the root of the state tree before the event; `state_after` is set where the event
-- changed it. `replaces` is the state event whose place it took. The newest event of a room tells what
-- the room's writer must know: its current state, and its forward extremities where the event is not
-- the only one (a JSON list of their event ids). `device_id` and `txn_id` tell the request that made the event, for idempotency.
CREATE TABLE events (
    event        bigint PRIMARY KEY,
    room         int    NOT NULL,
    position     bigint,
    depth        bigint NOT NULL,
    type         int    NOT NULL,
    sender       int    NOT NULL,
    state_key    int,
    event_id     text   NOT NULL,
    json         bytea  NOT NULL,
    state_before bytea  NOT NULL,
    state_after  bytea,
    replaces     bigint,
    redacted_by  bigint,
    extremities  text,
    device_id    text,
    txn_id       text
);
-- Event JSON is a few hundred bytes: compressing it costs more than it saves.
ALTER TABLE events ALTER COLUMN json SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX events_event_id ON events (event_id);
CREATE UNIQUE INDEX events_timeline ON events (room, position);
CREATE INDEX events_topological ON events (room, depth, position);
CREATE INDEX events_transactions ON events (sender, device_id, event) WHERE txn_id IS NOT NULL;

-- The newest membership of each user in each room, as the room's current state has it.
CREATE TABLE memberships (
    member     int     NOT NULL,
    room       int     NOT NULL,
    membership text    NOT NULL,
    event      bigint  NOT NULL,
    position   bigint  NOT NULL,
    sender     int     NOT NULL,
    forgotten  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (member, room)
);
CREATE INDEX memberships_room ON memberships (room, membership);

CREATE TABLE room_aliases (
    alias      text PRIMARY KEY,
    room       int  NOT NULL,
    creator    int  NOT NULL,
    created_at bigint NOT NULL
);
CREATE INDEX room_aliases_room ON room_aliases (room);
