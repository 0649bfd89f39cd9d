-- The room directories of application services: which rooms they list for their networks.

-- A room that is no longer listed keeps its row, so that listing and removing it are one statement.
CREATE TABLE appservice_rooms (
    appservice text,
    network    text,
    room       int,
    is_listed  boolean NOT NULL,
    PRIMARY KEY (appservice, network, room)
);
