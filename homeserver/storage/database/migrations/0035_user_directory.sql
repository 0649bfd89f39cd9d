-- The user directory: who is found by whom, by the beginnings of the words in names and user ids.

-- What a user is called where. A scope is one within which everybody may see the same users: the
-- members of a room, by its nid; 0 for the members of all rooms that everybody may see; -1 for all
-- users of this server.
CREATE TABLE user_directory_entries (
    scope        int,
    member       int,
    display_name text,
    avatar_url   text,
    keys         text NOT NULL,      -- the rows of the index below, with a line feed before each
    PRIMARY KEY (scope, member)
);

-- The index of the entries. A search reads a bounded number of neighbouring rows in each scope.
CREATE TABLE user_directory_keys (
    scope  int,
    key    text COLLATE "C",
    member int,
    PRIMARY KEY (scope, key, member)
);

-- How far rooms are in the directory. A room that is not complete is indexed again as a whole.
CREATE TABLE user_directory_rooms (
    room        int     PRIMARY KEY,
    visibility  text    NOT NULL CHECK (visibility IN ('nobody', 'members', 'everybody')),
    is_complete boolean NOT NULL
);

-- Accounts that were created or changed, until the directory has followed. No row is changed, so
-- that one which comes while another of the same user is being handled is not lost.
CREATE TABLE user_directory_accounts (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL
);
INSERT INTO user_directory_accounts (user_id) SELECT user_id FROM users;

CREATE FUNCTION enqueue_directory_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_directory_accounts (user_id) VALUES (NEW.user_id);
    RETURN NULL;
END $$;
CREATE TRIGGER users_enter_directory
    AFTER INSERT OR UPDATE OF is_guest, is_deactivated, appservice ON users
    FOR EACH ROW EXECUTE FUNCTION enqueue_directory_account();
