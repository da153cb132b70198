-- The outbox in an application's own PostgreSQL database. `:table` is the table's name, with its schema where one is
-- named. Nothing here touches anything else of the application.

-- name: make_table
-- One row for each message that the application wants sent. Refused ones are out of the index of what is next, so
-- that they are in nobody's way.
CREATE TABLE IF NOT EXISTS :table (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
  message text NOT NULL,
  written_at timestamptz NOT NULL DEFAULT now(),
  refused_at timestamptz,
  error text
);
CREATE INDEX IF NOT EXISTS paceline_outbox_next ON :table (position) WHERE error IS NULL;

-- name: make_bell
-- Wakes the relay with each commit that wrote rows. Without it the relay looks by itself, every few seconds.
CREATE OR REPLACE FUNCTION :table_ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('paceline_outbox', TG_TABLE_SCHEMA);
  RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER paceline_outbox_ring AFTER INSERT ON :table
FOR EACH STATEMENT EXECUTE FUNCTION :table_ring();

-- name: enqueue
-- One message, on the connection and in the transaction of the application.
INSERT INTO :table (key, message) VALUES (:key, :message);

-- name: find
-- Whether there is an outbox.
SELECT to_regclass('paceline_outbox') IS NOT NULL;

-- name: lock
-- Only one process relays a table: it holds this lock for as long as its connection lives.
SELECT pg_try_advisory_lock(1346587727, hashtext(current_schema()));

-- name: next
-- The first $1 rows that were not refused, and how large they are; their texts are not touched.
SELECT position, octet_length(message) FROM paceline_outbox WHERE error IS NULL ORDER BY position LIMIT $1;

-- name: texts
-- The rows at these positions, in order.
SELECT position, key, message, octet_length(message) FROM paceline_outbox
WHERE position = ANY ($1::bigint[]) AND error IS NULL ORDER BY position;

-- name: oversized
-- The rows at these positions without their texts, which nobody wants to hold.
SELECT position, key, '', octet_length(message) FROM paceline_outbox
WHERE position = ANY ($1::bigint[]) AND error IS NULL ORDER BY position;

-- name: taken
-- Deletes rows (positions, keys) whose messages are acknowledged.
DELETE FROM paceline_outbox USING unnest($1::bigint[], $2::text[]) AS given (position, key)
WHERE paceline_outbox.position = given.position AND paceline_outbox.key = given.key;

-- name: refused
-- Keeps why rows (positions, keys, errors) were refused.
UPDATE paceline_outbox SET error = given.error, refused_at = now()
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS given (position, key, error)
WHERE paceline_outbox.position = given.position AND paceline_outbox.key = given.key;

-- name: facts
-- How many rows wait, how many were refused, and since when the first one waits.
SELECT count(*) FILTER (WHERE error IS NULL), count(*) FILTER (WHERE error IS NOT NULL),
       (extract(epoch FROM min(written_at) FILTER (WHERE error IS NULL)) * 1000)::bigint
FROM paceline_outbox;

-- name: list
-- Rows in order, refused ones alone ($1) or all, at most $2, the beginning of their messages.
SELECT position, key, left(message, 2000), octet_length(message), (extract(epoch FROM written_at) * 1000)::bigint,
       (extract(epoch FROM refused_at) * 1000)::bigint, error
FROM paceline_outbox WHERE NOT $1::boolean OR error IS NOT NULL ORDER BY position LIMIT $2;

-- name: retry
-- Refused rows with these keys, or all ($2), are tried once more; answers how many.
WITH again AS (
  UPDATE paceline_outbox SET error = NULL, refused_at = NULL
  WHERE error IS NOT NULL AND ($2::boolean OR key = ANY ($1::text[])) RETURNING position
)
SELECT count(*) FROM again;

-- name: ring
-- Wakes the relay by hand: rows came back to it that no insert tells of.
SELECT pg_notify('paceline_outbox', current_schema());

-- name: discard
-- Refused rows with these keys go; answers how many.
WITH gone AS (DELETE FROM paceline_outbox WHERE error IS NOT NULL AND key = ANY ($1::text[]) RETURNING position)
SELECT count(*) FROM gone;
