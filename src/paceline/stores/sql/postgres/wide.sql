-- Wide limits themselves: set anew with what the journal and the calls under way occupy, while no node commits.

-- name: lock_fences
-- Waits for the commit of every other node, and keeps all from committing until this one is made.
SELECT node FROM fence WHERE NOT ended ORDER BY node FOR UPDATE;

-- name: next_wide_revision
-- Wide limits change: hand-overs by nodes that have not heard of it are refused from the commit on.
UPDATE wide_revision SET newest = newest + 1 RETURNING newest;

-- name: set_wide
-- Adds or replaces a wide limit (fields of Wide); answers its number.
INSERT INTO wide (name, maximum, span_ms, tenant, queue, channel, recipient, "group", surplus)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, false)
ON CONFLICT (name) DO UPDATE SET
  maximum = excluded.maximum, span_ms = excluded.span_ms, tenant = excluded.tenant, queue = excluded.queue,
  channel = excluded.channel, recipient = excluded.recipient, "group" = excluded."group", surplus = false
RETURNING number;

-- name: drop_wide
-- Removes a wide limit; answers its number.
DELETE FROM wide WHERE name = $1 RETURNING number;

-- name: all_wide
-- All wide limits, as Wide.
SELECT name, maximum, span_ms, tenant, queue, channel, recipient, "group" FROM wide ORDER BY name;

-- name: drop_places
-- The limit $1 has no places any more.
WITH held AS (DELETE FROM place_held WHERE rule = $1),
free AS (DELETE FROM place_free WHERE rule = $1)
DELETE FROM place_made WHERE rule = $1;

-- name: seed_places
-- The limit $1 has the places that are occupied at $2: by calls under way, and by those that ended less than a window ago,
-- the newest of them. Every account that the journal knows is asked by a hop of the index. Whose the times are is not
-- known. The key is that of `postgres_places.key_bytes`.
WITH RECURSIVE known (account) AS (
  (SELECT account FROM attempt WHERE account <> '' ORDER BY account LIMIT 1)
  UNION ALL
  SELECT (SELECT line.account FROM attempt AS line WHERE line.account > known.account AND line.account <> ''
          ORDER BY line.account LIMIT 1)
  FROM known WHERE known.account IS NOT NULL
),
rule AS MATERIALIZED (SELECT * FROM wide WHERE number = $1),
covered AS MATERIALIZED (
  SELECT flow.number FROM flow CROSS JOIN rule
  WHERE rule.tenant IN ('', flow.tenant) AND rule.queue IN ('', flow.queue)
    AND rule.channel IN ('', split_part(flow.lane, '/', 2))
),
sends AS (
  SELECT line.recipient, line."group", line.finished + rule.span_ms AS free_at, NULL::bigint AS message
  FROM rule CROSS JOIN known
  CROSS JOIN LATERAL (
    SELECT flow, recipient, "group", finished FROM attempt
    WHERE account = known.account AND account <> '' AND finished > $2::bigint - rule.span_ms AND outcome <> 'Withheld'
  ) AS line
  JOIN covered ON covered.number = line.flow
  WHERE rule.span_ms > 0
  UNION ALL
  SELECT message.recipient, message."group", NULL, message.id
  FROM under_way JOIN covered ON covered.number = under_way.flow JOIN message ON message.id = under_way.id
),
fitting AS (
  SELECT sends.free_at, sends.message,
         CASE WHEN rule.recipient = '' AND rule."group" = '' THEN NULL
              WHEN rule."group" = '' THEN convert_to(sends.recipient, 'UTF8')
              WHEN rule.recipient = '' THEN convert_to(sends."group", 'UTF8')
              ELSE convert_to(sends.recipient, 'UTF8') || '\x00'::bytea || convert_to(sends."group", 'UTF8') END AS text
  FROM sends CROSS JOIN rule
  WHERE (rule.recipient = '' OR (sends.recipient <> '' AND rule.recipient IN ('*', sends.recipient)))
    AND (rule."group" = '' OR (coalesce(sends."group", '') <> '' AND rule."group" IN ('*', sends."group")))
),
keyed AS (
  SELECT free_at, message, coalesce(substr(sha256(text), 1, 16), ''::bytea) AS key FROM fitting
),
placed AS MATERIALIZED (
  SELECT key, free_at, message, row_number() OVER (PARTITION BY key ORDER BY free_at DESC NULLS FIRST) - 1 AS place
  FROM keyed
),
held AS (
  INSERT INTO place_held (message, rule, key, place) SELECT message, $1, key, place FROM placed WHERE message IS NOT NULL
),
free AS (
  INSERT INTO place_free (rule, key, free_at, place, node)
  SELECT $1, key, free_at, place, 0 FROM placed CROSS JOIN rule WHERE message IS NULL AND place < rule.maximum
),
made AS (
  INSERT INTO place_made (rule, key, made, floor)
  SELECT $1, key, count(*), 0 FROM placed CROSS JOIN rule
  WHERE message IS NOT NULL OR place < rule.maximum GROUP BY key
)
UPDATE wide SET surplus = EXISTS (SELECT FROM placed WHERE message IS NOT NULL AND place >= wide.maximum)
WHERE number = $1;

-- name: made_places
-- How many places the limit $1 has that counts everything together.
SELECT made FROM place_made WHERE rule = $1 AND key = ''::bytea;

-- name: spare_places
-- Makes the places from $2 up to $3 of the limit $1 that counts everything together.
WITH made AS (
  INSERT INTO place_made (rule, key, made, floor) VALUES ($1, ''::bytea, $3::bigint, 0)
  ON CONFLICT (rule, key) DO UPDATE SET made = excluded.made
)
INSERT INTO place_free (rule, key, free_at, place, node)
SELECT $1, ''::bytea, 0, place, 0 FROM generate_series($2::bigint, $3::bigint - 1) AS place;

-- name: wide_use
-- Of the limits named $1, which count everything together: name, how many places are occupied at $2, and the next moment
-- at which one of these is free.
SELECT wide.name,
       (SELECT count(*) FROM place_held WHERE rule = wide.number)
         + (SELECT count(*) FROM place_free WHERE rule = wide.number AND key = ''::bytea AND free_at > $2::bigint),
       (SELECT min(free_at) FROM place_free WHERE rule = wide.number AND key = ''::bytea AND free_at > $2::bigint)
FROM wide WHERE name = ANY ($1::text[]) AND recipient = '' AND "group" = '';

-- name: idle_places
-- The next up to $4 keys (rule, key) behind ($1, $2), each with whether all of its places are there and were free by $3.
SELECT line.rule, line.key,
       line.made = (SELECT count(*) FROM place_free
                    WHERE place_free.rule = line.rule AND place_free.key = line.key AND free_at <= $3::bigint) AS idle
FROM place_made AS line
WHERE (line.rule, line.key) > ($1::integer, $2::bytea) AND line.key <> ''::bytea
ORDER BY line.rule, line.key LIMIT $4::bigint;

-- name: forget_places
-- Forgets those of the keys (rule, key) whose places are all there, were free by $3 and are in nobody's hands; answers how
-- many. A place that is needed is made anew.
WITH known AS MATERIALIZED (
  SELECT line.rule, line.key, line.made
  FROM unnest($1::integer[], $2::bytea[]) AS asked (rule, key)
  CROSS JOIN LATERAL (
    SELECT rule, key, made FROM place_made WHERE place_made.rule = asked.rule AND place_made.key = asked.key
    FOR UPDATE SKIP LOCKED
  ) AS line
),
spare AS MATERIALIZED (
  SELECT free.rule, free.key, free.free_at, free.place, known.made
  FROM known
  CROSS JOIN LATERAL (
    SELECT rule, key, free_at, place FROM place_free
    WHERE place_free.rule = known.rule AND place_free.key = known.key AND free_at <= $3::bigint
    FOR UPDATE SKIP LOCKED
  ) AS free
),
idle AS MATERIALIZED (SELECT rule, key FROM spare GROUP BY rule, key, made HAVING count(*) = made),
free AS (
  DELETE FROM place_free USING idle, spare
  WHERE spare.rule = idle.rule AND spare.key = idle.key AND place_free.rule = spare.rule AND place_free.key = spare.key
    AND place_free.free_at = spare.free_at AND place_free.place = spare.place
),
made AS (
  DELETE FROM place_made USING idle WHERE place_made.rule = idle.rule AND place_made.key = idle.key
  RETURNING place_made.rule
)
SELECT count(*) FROM made;
