-- Third-party identifiers: e-mail addresses and telephone numbers of accounts, the proofs that they
-- are the users', and where users had them published. Addresses are canonical. Times are milliseconds
-- since the epoch.

CREATE TABLE third_party_ids (
    medium text NOT NULL,
    address text NOT NULL,
    user_id text NOT NULL REFERENCES users,
    validated_ms int8 NOT NULL,
    added_ms int8 NOT NULL,
    PRIMARY KEY (medium, address)                -- one account for each address
);
CREATE INDEX ON third_party_ids (user_id);

-- Which identity servers were told of which address, so that it can be taken back there.
CREATE TABLE identity_bindings (
    user_id text NOT NULL REFERENCES users,
    medium text NOT NULL,
    address text NOT NULL,
    id_server text NOT NULL,
    PRIMARY KEY (user_id, medium, address, id_server)
);

-- Validations under way. The client keeps the secret, the mail has the token, and here are hashes of
-- both. Without a token the session cannot be validated: the mail said why.
CREATE TABLE validation_sessions (
    sid text PRIMARY KEY,
    secret_hash bytea NOT NULL,
    purpose text NOT NULL,
    medium text NOT NULL,
    address text NOT NULL,
    send_attempt int8 NOT NULL,
    token_hash bytea,
    next_link text,
    validated_ms int8,
    expires_ms int8 NOT NULL,
    UNIQUE (secret_hash, medium, address, purpose)
);
CREATE INDEX ON validation_sessions (expires_ms);
