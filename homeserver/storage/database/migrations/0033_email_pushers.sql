-- Pushers by e-mail: what they have mailed, and the token by which a mail can be unsubscribed.
--
-- `digest` is JSON: the position up to which a mail was being sent, and the pauses of rooms. It is in the
-- row of the progress, so that both change together. `unsubscribe_token` is random; other pushers have none.
ALTER TABLE pushers
    ADD COLUMN digest            bytea,
    ADD COLUMN unsubscribe_token text COLLATE "C";
CREATE UNIQUE INDEX pushers_by_unsubscribe_token ON pushers (unsubscribe_token)
    WHERE unsubscribe_token IS NOT NULL;
