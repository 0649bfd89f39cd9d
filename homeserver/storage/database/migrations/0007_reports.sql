-- Reports: what users told the administrators of other users, rooms and events.
--
-- `room_id` and `event_id` are given where a room, or an event in it, is reported, and `user_id` is the
-- user who is reported, or who sent the event. Times are milliseconds since the epoch.

CREATE TABLE reports (
    id          int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reported_ms int8 NOT NULL,
    reporter    text NOT NULL,
    room_id     text,
    event_id    text,
    user_id     text,
    reason      text NOT NULL
);
