-- Positions of the log follow the clock from now on, and event numbers are a counter of their own.

-- Before, an event's number was the position at which it was first stored. An event that no timeline
-- shows is still compared with positions: `stored_at` is the position at which it was stored. It is
-- NULL for an event with a position above zero, and for one from before, whose number it is.
ALTER TABLE events ADD COLUMN stored_at bigint;

-- Numbers go on above all that may have been used.
INSERT INTO server_state (key, value)
SELECT 'reserved_event_numbers', value FROM server_state WHERE key = 'reserved_positions';
