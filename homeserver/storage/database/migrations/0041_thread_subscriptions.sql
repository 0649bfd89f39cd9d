-- Thread subscriptions: the threads of which users want to be notified, or do not want to be any more.
--
-- `root` is the id of the event that the thread began with. A row stays when a subscription ends, as an older
-- event must not begin it again. `position` is that of the last change, for clients that ask what is new.
CREATE TABLE thread_subscriptions (
    room          integer NOT NULL,
    root          text    NOT NULL COLLATE "C",
    user_id       text    NOT NULL COLLATE "C",
    is_subscribed boolean NOT NULL,
    is_automatic  boolean NOT NULL,
    position      bigint  NOT NULL,
    PRIMARY KEY (room, root, user_id)
);
CREATE INDEX thread_subscriptions_of_user ON thread_subscriptions (user_id, position);
