-- What users were told of rooms that this server is not in, when they were invited or knocked: the
-- stripped state, a JSON list. Their memberships are in `memberships` like all others.

CREATE TABLE distant_memberships (
    room     int    NOT NULL,
    member   int    NOT NULL,
    stripped bytea  NOT NULL,
    PRIMARY KEY (room, member)
);
