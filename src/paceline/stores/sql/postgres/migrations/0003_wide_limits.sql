-- Limits wider than a lane, and how many calls of a queue may be under way at once, counted over all nodes. Each of them
-- is so many places; a hand-over takes one, which is free again a window's length after the end of its call. A place is
-- in `place_free` until it is taken, then in `place_held` until that call is settled, as messages are in `waiting` and
-- `under_way`. So nobody waits for anybody's row: whoever takes a place passes over those that another one has in his
-- hands, and whoever gives one back owns it.
-- A program that takes no places would send beyond the limits of others.
-- oldest program: 3

-- The limits as the store counts them: `span_ms` 0 is a number of calls under way. `recipient` and `group` are '' for
-- all together, '*' for each apart, or one value; the other conditions one value, or '' for any.
CREATE TABLE wide (
  number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE,
  maximum bigint NOT NULL,
  span_ms bigint NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  queue text COLLATE "C" NOT NULL,
  channel text COLLATE "C" NOT NULL,
  recipient text COLLATE "C" NOT NULL,
  "group" text COLLATE "C" NOT NULL,
  -- More calls were under way than places are left, when it was made smaller.
  surplus boolean NOT NULL
);

-- Grows with each change of `wide`: a hand-over by a node that does not know of the last one is refused.
CREATE TABLE wide_revision (
  place integer PRIMARY KEY CHECK (place = 1),
  newest bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO wide_revision VALUES (1, 0);

-- How many places a limit has for one key (recipient, group; '' for all together): they are made as they are needed.
-- None that comes back is free before `floor`.
CREATE TABLE place_made (
  rule integer NOT NULL,
  key bytea NOT NULL,
  made bigint NOT NULL,
  floor bigint NOT NULL,
  PRIMARY KEY (rule, key)
) WITH (fillfactor = 50);

-- Places that nobody holds, in the order in which they may be used again. `node` used it last: the times of others may
-- be off.
CREATE TABLE place_free (
  rule integer NOT NULL,
  key bytea NOT NULL,
  free_at bigint NOT NULL,
  place bigint NOT NULL,
  node bigint NOT NULL,
  PRIMARY KEY (rule, key, free_at, place)
);

-- Places of hand-overs that have not ended.
CREATE TABLE place_held (
  message bigint NOT NULL,
  rule integer NOT NULL,
  key bytea NOT NULL,
  place bigint NOT NULL,
  PRIMARY KEY (message, rule)
);

ALTER TABLE place_free SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                            autovacuum_vacuum_cost_delay = 0);
ALTER TABLE place_held SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                            autovacuum_vacuum_cost_delay = 0);
