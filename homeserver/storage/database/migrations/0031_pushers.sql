-- Pushers: where each user's notifications are sent.
--
-- `pusher` is the position of the log at which it was first set, `set_position` that of the latest
-- change. `device_id` is the device that set it, and `token` its access token, if that has no device:
-- a pusher whose device or token is gone does not exist any more. `data` is JSON. Times are milliseconds
-- since the epoch.
--
-- Everything up to `sent_upto` was sent, or need not be sent. `behind_since` is the position of the first
-- event that a gateway which does not answer has missed, `badge` the count of unread messages that was sent
-- last. These change with each push, and are in no index but one of the few rows that are behind.
CREATE TABLE pushers (
    pusher              bigint  NOT NULL,
    user_id             text    NOT NULL COLLATE "C",
    device_id           text    COLLATE "C",
    token               bigint,
    kind                text    NOT NULL,
    app_id              text    NOT NULL COLLATE "C",
    pushkey             text    NOT NULL COLLATE "C",
    app_display_name    text    NOT NULL,
    device_display_name text    NOT NULL,
    profile_tag         text    NOT NULL,
    lang                text    NOT NULL,
    data                bytea   NOT NULL,
    enabled             boolean NOT NULL,
    set_position        bigint  NOT NULL,
    set_ms              bigint  NOT NULL,
    sent_upto           bigint  NOT NULL,
    behind_since        bigint,
    failing_since_ms    bigint,
    badge               int,
    PRIMARY KEY (app_id, pushkey, user_id)
) WITH (fillfactor = 70);
CREATE INDEX pushers_of_user ON pushers (user_id);
CREATE UNIQUE INDEX pushers_number ON pushers (pusher);
CREATE INDEX pushers_behind ON pushers (user_id) WHERE behind_since IS NOT NULL;
