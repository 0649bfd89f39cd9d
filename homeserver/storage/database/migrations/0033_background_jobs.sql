-- Background jobs: work in small steps, which continues where it stopped.

-- `arguments` and `progress` are JSON objects: what is to be done, and where the next step begins.
-- `done` of `total` says to people how far it is; times are in ms.
CREATE TABLE background_jobs (
    job_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text   NOT NULL,
    arguments  text   NOT NULL,
    state      text   NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    progress   text   NOT NULL DEFAULT '{}',
    done       bigint NOT NULL DEFAULT 0,
    total      bigint,
    error      text,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);

-- The same work is not begun twice.
CREATE UNIQUE INDEX background_jobs_unfinished ON background_jobs (kind, md5(arguments))
 WHERE state IN ('waiting', 'running');
