-- The invites of new rooms that need another server, until they are sent or refused.

-- They are stored together with the room, so that a crash loses none. Either `user_id` is set, or all
-- of `medium` and the following columns are. `place` numbers the invites of a room.
CREATE TABLE unsent_invites (
    room            int,
    place           smallint,
    sender          text    NOT NULL,
    is_direct       boolean NOT NULL,
    user_id         text,
    medium          text,
    address         text,
    id_server       text,
    id_access_token text,
    PRIMARY KEY (room, place)
);
