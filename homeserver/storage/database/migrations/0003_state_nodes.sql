-- The nodes of all rooms' state trees. A state is named by the hash of its root node; a node is
-- named by the hash of its content, so states that share content share rows, and no row changes.

CREATE TABLE state_nodes (
    hash bytea PRIMARY KEY,
    node bytea NOT NULL
);
