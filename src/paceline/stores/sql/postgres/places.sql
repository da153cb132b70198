-- Places of limits wider than a lane: taken in the transaction that hands over, given back in the one that settles.
-- Nobody waits here: rows that another node has in its hands are passed over.

-- name: wide_revision
-- The number of the last change of wide limits.
SELECT newest FROM wide_revision;

-- name: wide
-- All wide limits, for whoever takes places.
SELECT name, number, maximum, span_ms FROM wide;

-- name: take_places
-- Takes free places out: for each asked for (rule, key, how many) those that were free first, by $4, or by $5 where
-- another node than $6 used them last; answers (position, place, free_at, node).
WITH picked AS MATERIALIZED (
  SELECT wanted.at, free.rule, free.key, free.free_at, free.place
  FROM unnest($1::integer[], $2::bytea[], $3::bigint[]) WITH ORDINALITY AS wanted (rule, key, many, at)
  CROSS JOIN LATERAL (
    SELECT rule, key, free_at, place FROM place_free
    WHERE place_free.rule = wanted.rule AND place_free.key = wanted.key AND free_at <= $4::bigint
      AND (node = $6::bigint OR free_at <= $5::bigint)
    ORDER BY place_free.rule, place_free.key, free_at, place LIMIT wanted.many FOR UPDATE SKIP LOCKED
  ) AS free
)
DELETE FROM place_free USING picked
WHERE place_free.rule = picked.rule AND place_free.key = picked.key AND place_free.free_at = picked.free_at
  AND place_free.place = picked.place
RETURNING picked.at, place_free.place, place_free.free_at, place_free.node;

-- name: known_places
-- Which of the (rule, key) have any places, as positions.
SELECT wanted.at FROM unnest($1::integer[], $2::bytea[]) WITH ORDINALITY AS wanted (rule, key, at)
WHERE EXISTS (SELECT FROM place_made WHERE place_made.rule = wanted.rule AND place_made.key = wanted.key);

-- name: first_places
-- Makes the first places (rule, key, how many) of keys that have none; answers (rule, key) of those that had none.
INSERT INTO place_made (rule, key, made, floor)
SELECT rule, key, many, 0 FROM unnest($1::integer[], $2::bytea[], $3::bigint[]) AS wanted (rule, key, many)
ORDER BY rule, key
ON CONFLICT DO NOTHING RETURNING rule, key;

-- name: more_places
-- Makes more places: for (rule, key, how many) while there are less than the limit allows, where nobody else is making
-- some just now. Answers (position, how many there were, how many there are).
WITH known AS MATERIALIZED (
  SELECT wanted.at, line.rule, line.key, line.made, least(line.made + wanted.many, wide.maximum) AS wanted
  FROM unnest($1::integer[], $2::bytea[], $3::bigint[]) WITH ORDINALITY AS wanted (rule, key, many, at)
  JOIN wide ON wide.number = wanted.rule
  CROSS JOIN LATERAL (
    SELECT rule, key, made FROM place_made
    WHERE place_made.rule = wanted.rule AND place_made.key = wanted.key AND place_made.made < wide.maximum
    FOR UPDATE SKIP LOCKED
  ) AS line
)
UPDATE place_made SET made = known.wanted FROM known
WHERE place_made.rule = known.rule AND place_made.key = known.key AND place_made.made + 0 = known.made
RETURNING known.at, known.made, place_made.made;

-- name: hold_places
-- Hand-overs hold these places (message, rule, key, place).
INSERT INTO place_held (message, rule, key, place)
SELECT * FROM unnest($1::bigint[], $2::integer[], $3::bytea[], $4::bigint[]) AS given;

-- name: put_places
-- Puts free places in, or back (rule, key, free_at, place, node).
INSERT INTO place_free (rule, key, free_at, place, node)
SELECT * FROM unnest($1::integer[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[]) AS given;

-- name: end_places
-- Hand-overs of these messages ended at these moments (null: no call was made): their places are free when the window
-- has passed, last used by node $3. A limit that was removed has none. Answers whether some limit has more places than
-- it should.
WITH gone AS (
  DELETE FROM place_held USING unnest($1::bigint[], $2::bigint[]) AS given (message, finished)
  WHERE place_held.message = given.message
  RETURNING place_held.rule, place_held.key, place_held.place, given.finished
),
back AS (
  INSERT INTO place_free (rule, key, free_at, place, node)
  SELECT gone.rule, gone.key, CASE WHEN wide.span_ms = 0 THEN 0 ELSE coalesce(gone.finished + wide.span_ms, 0) END,
         gone.place, $3::bigint
  FROM gone JOIN wide ON wide.number = gone.rule
)
SELECT EXISTS (SELECT FROM wide WHERE surplus);

-- name: surplus_places
-- Limits that were made smaller than what was under way, with how many places each key has too many. The rows are held.
SELECT place_made.rule, place_made.key, place_made.made - wide.maximum, place_made.floor
FROM wide JOIN place_made ON place_made.rule = wide.number
WHERE wide.surplus AND (place_made.made > wide.maximum OR place_made.floor > 0)
ORDER BY 1, 2 FOR UPDATE OF place_made;

-- name: lift_places
-- No place of (rule $1, key $2) is free before $3: one that was free later went.
UPDATE place_free SET free_at = $3::bigint WHERE rule = $1 AND key = $2 AND free_at < $3::bigint;

-- name: cut_places
-- Takes $3 places of (rule $1, key $2) away for good, those that are free first.
WITH picked AS (
  SELECT rule, key, free_at, place FROM place_free WHERE rule = $1 AND key = $2
  ORDER BY rule, key, free_at, place LIMIT $3::bigint FOR UPDATE
),
gone AS (
  DELETE FROM place_free USING picked
  WHERE place_free.rule = picked.rule AND place_free.key = picked.key AND place_free.free_at = picked.free_at
    AND place_free.place = picked.place
  RETURNING place_free.free_at
)
UPDATE place_made SET made = made - (SELECT count(*) FROM gone),
  floor = greatest(floor, (SELECT max(free_at) FROM gone))
WHERE rule = $1 AND key = $2;

-- name: next_places
-- When the next places of (rule, key) are free that another node than $4 used last, after $3, as (position, moment).
SELECT wanted.at, free.free_at
FROM unnest($1::integer[], $2::bytea[]) WITH ORDINALITY AS wanted (rule, key, at)
CROSS JOIN LATERAL (
  SELECT free_at FROM place_free
  WHERE place_free.rule = wanted.rule AND place_free.key = wanted.key AND free_at > $3::bigint AND node <> $4::bigint
  ORDER BY place_free.rule, place_free.key, free_at LIMIT 500
) AS free
ORDER BY wanted.at, free.free_at;
