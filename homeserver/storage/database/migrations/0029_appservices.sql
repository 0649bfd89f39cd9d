-- The transactions of application services.
--
-- Each application service has at most one transaction that it has not acknowledged. It is stored before
-- it is sent, so that it is sent again unchanged, whatever happens in between. `number` is its id, a
-- position of the log; `upto` is the position up to which this transaction and the earlier ones have
-- everything; `body` is NULL once it is acknowledged.

CREATE TABLE appservice_transactions (
    appservice text   PRIMARY KEY,
    number     bigint NOT NULL,
    upto       bigint NOT NULL,
    body       bytea
);
