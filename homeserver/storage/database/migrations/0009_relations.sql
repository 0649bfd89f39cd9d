-- Relations: which events say in `m.relates_to` that they belong to another event of their room, so
-- that the children of an event are found without reading the room. A row goes with its event and is
-- deleted when the event is redacted, as that ends the relation. The parent is named by its event id,
-- because a child may be known before its parent; the child's event id is here as other children may
-- name it in turn. Rooms, types and senders are numbers of `names`, `child` is an event's number.

CREATE TABLE relations (
    child            bigint PRIMARY KEY,
    room             int    NOT NULL,
    parent_id        text   NOT NULL,
    rel_type         text   NOT NULL,
    key              text,
    child_id         text   NOT NULL,
    type             int    NOT NULL,
    sender           int    NOT NULL,
    depth            bigint NOT NULL,
    position         bigint NOT NULL,
    origin_server_ts bigint NOT NULL
);
CREATE INDEX relations_parent ON relations (parent_id, depth, position);
CREATE INDEX relations_threads ON relations (room, depth, position) WHERE rel_type = 'm.thread';
