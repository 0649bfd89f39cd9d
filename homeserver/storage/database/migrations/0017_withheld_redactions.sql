-- Redactions that no client may see yet stand in the graph, but in no timeline.

-- The forward extremities from a position on, as in `events`, where no event of the timeline has it.
ALTER TABLE current_states ADD COLUMN extremities text;

-- Whether a redaction that waits for its target was fetched for the room's past.
ALTER TABLE early_redactions ADD COLUMN is_past boolean NOT NULL DEFAULT false;
