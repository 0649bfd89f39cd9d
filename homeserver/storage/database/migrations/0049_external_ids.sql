-- External ids: the identities at identity providers with which users sign in.
--
-- `provider` is its id in the configuration, `subject` the provider's permanent id of the user. Times are
-- milliseconds since the epoch.
CREATE TABLE external_ids (
    provider text NOT NULL COLLATE "C",
    subject  text NOT NULL COLLATE "C",
    user_id  text NOT NULL REFERENCES users,
    added_ms int8 NOT NULL,
    PRIMARY KEY (provider, subject)
);
CREATE INDEX external_ids_of_user ON external_ids (user_id);
