-- The OAuth 2.0 API: clients, their sessions, and what leads to a session. Secrets are kept as SHA-256
-- hashes only. A session belongs to a device, ends with it, and takes its tokens with it.

CREATE TABLE oauth_clients (
    client_id text PRIMARY KEY,                  -- a digest of the metadata
    metadata bytea NOT NULL,                     -- JSON
    registered_ms int8 NOT NULL                  -- the last time
);
CREATE INDEX ON oauth_clients (registered_ms);

CREATE TABLE oauth_sessions (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL,
    device_id text NOT NULL,
    client_id text NOT NULL REFERENCES oauth_clients,
    scope text NOT NULL,
    family_hash bytea NOT NULL UNIQUE,           -- of the part that all its refresh tokens share
    generation int4 NOT NULL DEFAULT 0,          -- of its newest refresh token
    UNIQUE (user_id, device_id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX ON oauth_sessions (client_id);

ALTER TABLE refresh_tokens ADD COLUMN oauth_session int8 REFERENCES oauth_sessions ON DELETE CASCADE;
CREATE INDEX ON refresh_tokens (oauth_session) WHERE oauth_session IS NOT NULL;
ALTER TABLE access_tokens ADD COLUMN oauth_session int8 REFERENCES oauth_sessions ON DELETE CASCADE;
CREATE INDEX ON access_tokens (oauth_session) WHERE oauth_session IS NOT NULL;

CREATE TABLE oauth_authorization_codes (
    code_hash bytea PRIMARY KEY,
    user_id text NOT NULL REFERENCES users,
    client_id text NOT NULL REFERENCES oauth_clients ON DELETE CASCADE,
    redirect_uri text NOT NULL,
    scope text NOT NULL,
    code_challenge text NOT NULL,
    expires_ms int8 NOT NULL,
    oauth_session int8 REFERENCES oauth_sessions ON DELETE CASCADE  -- what it gave; null: unused
);
CREATE INDEX ON oauth_authorization_codes (user_id);
CREATE INDEX ON oauth_authorization_codes (client_id);
CREATE INDEX ON oauth_authorization_codes (oauth_session);
CREATE INDEX ON oauth_authorization_codes (expires_ms);

CREATE TABLE oauth_device_codes (
    device_code_hash bytea PRIMARY KEY,
    user_code_hash bytea NOT NULL UNIQUE,
    client_id text NOT NULL REFERENCES oauth_clients ON DELETE CASCADE,
    scope text NOT NULL,
    expires_ms int8 NOT NULL,
    polled_ms int8 NOT NULL DEFAULT 0,           -- when the client asked last
    user_id text REFERENCES users,               -- who has decided; null: nobody yet
    is_allowed boolean NOT NULL DEFAULT false
);
CREATE INDEX ON oauth_device_codes (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX ON oauth_device_codes (client_id);
CREATE INDEX ON oauth_device_codes (expires_ms);
