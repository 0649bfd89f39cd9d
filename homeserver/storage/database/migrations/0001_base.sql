-- What the server must remember of itself, and the small integers that stand for names.

-- One row a fact: the server's name, the log positions handed out, the number of starts.
CREATE TABLE server_state (
    key   text PRIMARY KEY,
    value text NOT NULL
);

-- User ids, event types and state keys are stored once; other tables refer to them by `nid`, which
-- keeps their rows and indexes small. A name is never changed or removed.
CREATE TABLE names (
    nid  int  PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text COLLATE "C" NOT NULL UNIQUE
);
