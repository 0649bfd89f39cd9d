-- Delayed events: events that are sent at a later time, unless they are cancelled before.
--
-- One is scheduled while it has a `due_ms`, the time at which it is sent: `scheduled_ms + delay_ms`, or a
-- little later if it could not be sent then. It is finalised once it has a `finalised_ms`: it was sent if it has
-- an `event_id`, failed if it has an `error` (JSON), and was cancelled otherwise. Times are milliseconds since the
-- epoch. `txn_key` is a digest of the request's path and transaction id, `scope` what that id belongs to.
--
-- A call restarts the delay of one every few seconds.
CREATE TABLE delayed_events (
    delay_id        text    PRIMARY KEY COLLATE "C",
    user_id         text    NOT NULL COLLATE "C",
    scope           text    NOT NULL COLLATE "C",
    txn_key         bytea,
    room_id         text    NOT NULL COLLATE "C",
    type            text    NOT NULL,
    state_key       text,
    content         bytea   NOT NULL,
    appservice      text,
    event_ts        bigint,
    is_rate_limited boolean NOT NULL,
    delay_ms        bigint  NOT NULL,
    scheduled_ms    bigint  NOT NULL,
    due_ms          bigint,
    finalised_ms    bigint,
    event_id        text,
    error           bytea
) WITH (fillfactor = 70);
CREATE INDEX delayed_events_due ON delayed_events (due_ms) WHERE due_ms IS NOT NULL;
CREATE INDEX delayed_events_of_user ON delayed_events (user_id, finalised_ms);
CREATE INDEX delayed_events_finalised ON delayed_events (finalised_ms) WHERE finalised_ms IS NOT NULL;
CREATE UNIQUE INDEX delayed_events_transaction ON delayed_events (user_id, scope, txn_key)
    WHERE txn_key IS NOT NULL;
