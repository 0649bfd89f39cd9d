-- Users who are signed in to the pages of this server, and what they have permitted there.

CREATE TABLE browser_sessions (
    secret_hash bytea PRIMARY KEY,
    user_id text NOT NULL REFERENCES users ON DELETE CASCADE,
    authenticated_ms int8 NOT NULL,              -- when the user proved who they are
    expires_ms int8 NOT NULL
);
CREATE INDEX ON browser_sessions (user_id);

-- Users who allow the replacement of their cross-signing keys, once, until it expires.
CREATE TABLE cross_signing_resets (
    user_id text PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    expires_ms int8 NOT NULL
);
