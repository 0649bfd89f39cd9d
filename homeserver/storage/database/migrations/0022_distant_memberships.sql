-- Through whom a user came to be invited to a room that this server is not in, or knocked at it.
--
-- Each server that a pending invite or knock comes from has a row of its own, so that none can
-- replace, or end, what another one has made. `server` is that of the user who invited, or the one
-- that was knocked at; `event` is the number of the member event; `size` is what the row takes, in
-- bytes, the event included. Which of them is shown is in `memberships`.

DELETE FROM distant_memberships
 WHERE NOT EXISTS (
       SELECT FROM memberships
        WHERE memberships.member = distant_memberships.member
          AND memberships.room = distant_memberships.room
          AND memberships.membership IN ('invite', 'knock'));

ALTER TABLE distant_memberships
    ADD COLUMN server text,
    ADD COLUMN event  bigint,
    ADD COLUMN size   int;

-- The domain of the inviting user; for a knock the best that is known is the one in the room's id,
-- which those of newer versions do not have.
UPDATE distant_memberships
   SET server = CASE position(':' IN named.name) WHEN 0 THEN ''
                ELSE substring(named.name FROM position(':' IN named.name) + 1) END,
       event = memberships.event,
       size = length(distant_memberships.stripped) + length(events.json)
  FROM memberships
  JOIN events ON events.event = memberships.event
  JOIN names AS named ON named.nid =
       CASE memberships.membership WHEN 'invite' THEN memberships.sender ELSE memberships.room END
 WHERE memberships.member = distant_memberships.member
   AND memberships.room = distant_memberships.room;

DELETE FROM distant_memberships WHERE server IS NULL;

ALTER TABLE distant_memberships
    ALTER COLUMN server SET NOT NULL,
    ALTER COLUMN event SET NOT NULL,
    ALTER COLUMN size SET NOT NULL,
    DROP CONSTRAINT distant_memberships_pkey,
    ADD PRIMARY KEY (member, room, server);
CREATE INDEX distant_memberships_by_server ON distant_memberships (server);
