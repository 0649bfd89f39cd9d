-- The presence that was last told of each user of this server.
--
-- `member` is a number from `names`, `position` the place of the last change in the log, `last_active_ms`
-- milliseconds since the epoch, as it was known at that change.

CREATE TABLE presence (
    member         int    PRIMARY KEY,
    state          text   NOT NULL,
    status_msg     text,
    last_active_ms bigint NOT NULL,
    position       bigint NOT NULL
);
-- Whom a start of the server finds there, and what a reader who was away for long has missed.
CREATE INDEX presence_present ON presence (member) WHERE state <> 'offline';
CREATE INDEX presence_position ON presence (position);
