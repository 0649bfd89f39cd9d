-- Event JSON is compressed by the server (homeserver/storage/rooms/event_json.py). Rows from before stay
-- as they are: a stored form begins with `{`, or with the version of a dictionary and three bytes of
-- the number of bytes of the JSON.

-- The number of bytes of the JSON in a stored form.
CREATE FUNCTION event_json_size(stored bytea) RETURNS int LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN get_byte(stored, 0) = 123 THEN octet_length(stored)
                ELSE (get_byte(stored, 1) << 16) | (get_byte(stored, 2) << 8) | get_byte(stored, 3) END
$$;
