-- Accounts: users, their devices and tokens, profiles, account data and filters.
--
-- Times are milliseconds since the epoch. Tokens are kept as SHA-256 hashes only. Rows of the stream
-- (profiles, account_data) carry the position of their last change in the log.

CREATE TABLE users (
    user_id text PRIMARY KEY,
    created_ms int8 NOT NULL,
    password_hash text,                          -- argon2id; null: no login by password
    is_guest boolean NOT NULL DEFAULT false,
    is_admin boolean NOT NULL DEFAULT false,
    user_type text,                              -- a label of the administrators, such as 'bot'
    appservice text,                             -- id of the application service that made the user
    is_deactivated boolean NOT NULL DEFAULT false,
    is_erased boolean NOT NULL DEFAULT false,    -- asked for erasure at deactivation
    is_leaving boolean NOT NULL DEFAULT false,   -- deactivated, but rooms have yet to be left
    is_locked boolean NOT NULL DEFAULT false,
    is_suspended boolean NOT NULL DEFAULT false
);

CREATE INDEX ON users (user_id) WHERE is_leaving;
CREATE INDEX ON users (user_id) WHERE is_erased;

CREATE SEQUENCE generated_localparts;

-- Which version of which policy a user accepted at registration.
CREATE TABLE accepted_policies (
    user_id text NOT NULL REFERENCES users,
    policy text NOT NULL,
    version text NOT NULL,
    accepted_ms int8 NOT NULL,
    PRIMARY KEY (user_id, policy, version)
);

CREATE TABLE devices (
    user_id text NOT NULL REFERENCES users,
    device_id text NOT NULL,
    display_name text,
    created_ms int8 NOT NULL,
    last_seen_ms int8,
    last_seen_ip text,
    last_seen_agent text,                        -- the client, as it calls itself in User-Agent
    PRIMARY KEY (user_id, device_id)
);

-- A refresh token stays until its successor, or the access token that came with it, is used.
CREATE TABLE refresh_tokens (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token_hash bytea NOT NULL UNIQUE,
    user_id text NOT NULL,
    device_id text NOT NULL,
    predecessor int8 REFERENCES refresh_tokens ON DELETE SET NULL,
    expires_ms int8,
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX ON refresh_tokens (user_id, device_id);
CREATE INDEX ON refresh_tokens (predecessor);

CREATE TABLE access_tokens (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token_hash bytea NOT NULL UNIQUE,
    user_id text NOT NULL REFERENCES users,
    device_id text,                              -- null: a token without a device
    refresh_token int8 REFERENCES refresh_tokens ON DELETE CASCADE,
    created_ms int8 NOT NULL,
    expires_ms int8,
    FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX ON access_tokens (user_id, device_id);
CREATE INDEX ON access_tokens (refresh_token);

-- Single-use tokens of `m.login.token`.
CREATE TABLE login_tokens (
    token_hash bytea PRIMARY KEY,
    user_id text NOT NULL REFERENCES users,
    expires_ms int8 NOT NULL
);

CREATE TABLE openid_tokens (
    token_hash bytea PRIMARY KEY,
    user_id text NOT NULL REFERENCES users,
    expires_ms int8 NOT NULL
);

-- Tokens that let people register; given out by administrators, so they are readable.
CREATE TABLE registration_tokens (
    token text PRIMARY KEY,
    uses_allowed int4,                           -- null: any number
    uses int4 NOT NULL DEFAULT 0,
    expires_ms int8
);

-- What a client has proved so far in user-interactive authentication. The contents are encrypted with
-- a key made from the session id, which is not kept: requests may hold a new password.
CREATE TABLE authentication_sessions (
    session_hash bytea PRIMARY KEY,
    sealed bytea NOT NULL,
    expires_ms int8 NOT NULL
);
CREATE INDEX ON authentication_sessions (expires_ms);

CREATE TABLE profiles (
    user_id text NOT NULL,
    field text NOT NULL,
    value bytea,                                 -- JSON; null: the field was removed
    position int8 NOT NULL,
    PRIMARY KEY (user_id, field)
);

CREATE TABLE account_data (
    user_id text NOT NULL,
    room_id text NOT NULL,                       -- '' for global account data
    type text NOT NULL,
    content bytea NOT NULL,                      -- JSON object
    position int8 NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX ON account_data (user_id, position);

CREATE TABLE filters (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL REFERENCES users,
    content_hash bytea NOT NULL,
    content bytea NOT NULL,                      -- canonical JSON
    UNIQUE (user_id, content_hash)
);
