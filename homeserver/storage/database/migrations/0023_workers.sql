-- The processes that write to this database, and which of them may write for which shard.

-- One row for each run of a process; a number is never used again. `slot` is unique among those that
-- are alive. `machine` names the boot and the process namespace in which `pid` is unique; it is empty
-- where that is not known. All connections of a process have its `application_name`.
CREATE TABLE workers (
    worker           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    is_alive         boolean     NOT NULL DEFAULT true,
    slot             smallint    NOT NULL CHECK (slot BETWEEN 0 AND 1023),
    host             text        NOT NULL,
    machine          text        NOT NULL,
    pid              int         NOT NULL,
    pid_began        bigint      NOT NULL,
    version          text        NOT NULL,
    application_name text        NOT NULL,
    started          timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX workers_slots ON workers (slot) WHERE is_alive;

-- Until when a process is known to be alive, by the database's clock. A table of its own: an update
-- of the row in `workers` would wait for each commit in progress, which locks it.
CREATE TABLE leases (
    worker bigint PRIMARY KEY REFERENCES workers ON DELETE CASCADE,
    until  timestamptz NOT NULL
) WITH (fillfactor = 10);

-- Every fact belongs to one of 1,024 shards, by the last ten bits of a number; `worker` writes it.
CREATE TABLE shards (
    shard  smallint PRIMARY KEY CHECK (shard BETWEEN 0 AND 1023),
    worker bigint REFERENCES workers,
    epoch  bigint NOT NULL DEFAULT 0
);
INSERT INTO shards (shard) SELECT generate_series(0, 1023);
