-- Which events name whom: what somebody who was away for long must not miss, however much was said
-- in the meantime.
--
-- Rooms are numbers from `names`; `event` is the event's number and `position` its place in the room's
-- timeline. The user id of an event that is for all in the room is empty.

CREATE TABLE mentions (
    room     int    NOT NULL,
    user_id  text   NOT NULL,
    position bigint NOT NULL,
    event    bigint NOT NULL,
    PRIMARY KEY (room, user_id, position)
);
