-- A mark and sweep removes state nodes that belong to no state any more: states that were computed
-- and not used, states of rooms that were purged. Why it is safe: homeserver/rooms/state/garbage_collection.py.

-- The generation in which a node was last written, or would have been if it had not been there.
ALTER TABLE state_nodes ADD COLUMN generation int NOT NULL DEFAULT 0;

-- One row: the present generation, and how far its sweep has come. `pending` are marked nodes whose
-- children are still to be marked; `event`, (`room`, `position`) and `hash` are where the next step
-- goes on in events, current states and nodes.
CREATE TABLE state_sweep (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation int     NOT NULL DEFAULT 0,
    phase      text    NOT NULL DEFAULT 'idle'
               CHECK (phase IN ('idle', 'events', 'current_states', 'nodes')),
    event      bigint  NOT NULL DEFAULT 0,
    room       int     NOT NULL DEFAULT 0,
    position   bigint  NOT NULL DEFAULT 0,
    hash       bytea   NOT NULL DEFAULT '',
    pending    bytea[] NOT NULL DEFAULT '{}',
    marked     bigint  NOT NULL DEFAULT 0,
    removed    bigint  NOT NULL DEFAULT 0,
    began      timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO state_sweep DEFAULT VALUES;

-- The nodes that the sweep of this generation has found to belong to a state.
CREATE TABLE state_marks (
    hash bytea PRIMARY KEY
);

-- What was a root when a sweep began must be seen by it. Whoever takes a root away therefore ends
-- the sweep; the next one begins from the start. The row is written even where it seems idle: who is
-- just beginning a sweep holds it, and has to be waited for.
CREATE FUNCTION end_state_sweep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE state_sweep SET phase = 'idle';
    RETURN NULL;
END $$;
CREATE TRIGGER events_lose_roots AFTER DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION end_state_sweep();
CREATE TRIGGER event_changes_roots AFTER UPDATE OF state_before, state_after ON events
    FOR EACH ROW WHEN (OLD.state_before <> NEW.state_before OR OLD.state_after <> NEW.state_after
                       OR (OLD.state_before IS NOT NULL AND NEW.state_before IS NULL)
                       OR (OLD.state_after IS NOT NULL AND NEW.state_after IS NULL))
    EXECUTE FUNCTION end_state_sweep();
CREATE TRIGGER current_states_lose_roots AFTER DELETE OR UPDATE OF root OR TRUNCATE ON current_states
    FOR EACH STATEMENT EXECUTE FUNCTION end_state_sweep();
