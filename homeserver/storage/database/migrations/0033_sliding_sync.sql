-- Sliding sync: what the lists of rooms are filtered by, and the connections of devices.
--
-- `room_type` is '' for a room without a type. Both columns are null where nobody has asked for them
-- since the room was joined before they existed.
ALTER TABLE rooms ADD COLUMN room_type text;
ALTER TABLE rooms ADD COLUMN is_encrypted boolean;
