-- What keeps two changes of the log from taking one place.

-- An insert of the log that meets its own row again was written twice, because nobody knew whether
-- the first time succeeded. If it meets another row, then a position was given out twice: the insert
-- calls this function, and so the whole batch fails, instead of being left out without a word.
CREATE FUNCTION refuse_taken_key(of_table text, taken text) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    RAISE unique_violation USING
        MESSAGE = format('%s already has a row with other content at %s', of_table, taken),
        HINT = 'A position of the log was given out twice.';
END
$$;

-- Every start looks for the highest position that is stored anywhere.
CREATE INDEX memberships_position ON memberships (position);
CREATE INDEX profiles_position ON profiles (position);
