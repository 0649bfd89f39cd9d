-- Server-side key backups: encrypted copies of room keys, which a user's devices store and read.

-- One row for each user who ever made a backup. Versions are numbered from 1 and never used again, so a
-- number up to `last_version` without a row in `key_backups` is that of a deleted backup. The row is
-- also the lock of all writers of the user's backups.
CREATE TABLE key_backup_users (
    user_id      text   PRIMARY KEY,
    last_version bigint NOT NULL
);

-- The keys of a backup are those of its key set. A backup that loses all its keys gets an empty set;
-- the rows of the former one are deleted little by little.
CREATE SEQUENCE key_sets;

-- `auth_data` is JSON. `key_count` and `bytes` are those of the keys, and `etag` counts their changes.
CREATE TABLE key_backups (
    user_id   text,
    version   bigint,
    algorithm text   NOT NULL,
    auth_data bytea  NOT NULL,
    key_set   bigint NOT NULL DEFAULT nextval('key_sets'),
    etag      bigint NOT NULL DEFAULT 0,
    key_count bigint NOT NULL DEFAULT 0,
    bytes     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, version)
);

-- `session_data` is JSON, as it was uploaded.
CREATE TABLE backed_up_keys (
    key_set             bigint,
    room_id             text COLLATE "C",
    session_id          text COLLATE "C",
    first_message_index bigint  NOT NULL,
    forwarded_count     bigint  NOT NULL,
    is_verified         boolean NOT NULL,
    session_data        bytea   NOT NULL,
    PRIMARY KEY (key_set, room_id, session_id)
);

-- Key sets that belong to no backup any more, while they may still have rows.
CREATE TABLE deleted_key_sets (
    key_set bigint PRIMARY KEY
);
