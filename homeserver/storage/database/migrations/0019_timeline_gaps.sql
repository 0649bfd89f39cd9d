-- Where the timeline of a room is broken: the event at this position follows events that were not
-- here when it came, while the timeline goes on from what stands before those. A gap stays a gap when
-- it is filled: what is fetched for it stands in the past, and in no timeline.

CREATE TABLE timeline_gaps (
    room     int    NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (room, position)
);

-- Of the gaps up to now those are known that were not filled: the events that follow them name what
-- is missing. The first event of a timeline has nothing before it that a gap could break off.
INSERT INTO timeline_gaps (room, position)
SELECT DISTINCT gap.room, follower.position
  FROM backward_extremities gap
  JOIN events follower ON follower.room = gap.room AND follower.depth = gap.depth
 WHERE follower.position > 0
   AND position(convert_to('"' || gap.event_id || '"', 'UTF8') IN follower.json) > 0
   AND EXISTS (SELECT FROM events earlier
                WHERE earlier.room = gap.room
                  AND earlier.position > 0 AND earlier.position < follower.position);
