-- A transaction id belongs to the path of its request: the same id for another path is another request.

-- The path of the request that made the event, without the transaction id; NULL where it is that of
-- sending a message of the event's type to its room, as nearly all are.
ALTER TABLE events ADD COLUMN txn_path text;
