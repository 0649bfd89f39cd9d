-- Auth chains: which events each state event cites as its authority, by their numbers and in both
-- directions, so that state resolution finds what two branches do not have in common without
-- reading the events. What an event cites was known before it, and so has a smaller number.

CREATE TABLE auth_edges (
    event      bigint NOT NULL,
    auth_event bigint NOT NULL,
    PRIMARY KEY (event, auth_event)
);

-- For the events that are there already. `auth_events` stands first in the JSON of all events that
-- were made here, and a reference is an event id or, in room versions 1 and 2, a list that begins with
-- one. The rest of the JSON is not read, and nothing with an escaped character, as `jsonb` refuses
-- strings that clients may send. Should another server's event be left out by that, then
-- `homeserver doctor --repair` puts it right.
INSERT INTO auth_edges (event, auth_event)
SELECT DISTINCT citing.event, cited.event
  FROM events citing
 CROSS JOIN LATERAL substring(convert_from(citing.json, 'UTF8')
                              FROM '^\{"auth_events":(\[.*?\]),"content":') AS auth_events
 CROSS JOIN LATERAL jsonb_array_elements(
           CASE WHEN strpos(auth_events, '\') = 0 THEN auth_events::jsonb END) AS reference
  JOIN events cited
    ON cited.room = citing.room
   AND cited.event_id = CASE jsonb_typeof(reference)
                             WHEN 'array' THEN reference ->> 0
                             ELSE reference #>> '{}'
                        END
 WHERE citing.state_key IS NOT NULL;

CREATE INDEX auth_edges_citing ON auth_edges (auth_event, event);
