-- The outbox in an application's own SQLite file. `:table` is the table's name. The application's SQLite may be an
-- older one than ours: what runs on its connection, and what the table is made of, is plain.

-- name: make_table
-- One row for each message that the application wants sent. Refused ones are out of the index of what is next, so
-- that they are in nobody's way.
CREATE TABLE IF NOT EXISTS :table (
  position INTEGER PRIMARY KEY,
  key TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),
  message TEXT NOT NULL,
  written_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
  refused_at INTEGER,
  error TEXT
);
CREATE INDEX IF NOT EXISTS paceline_outbox_next ON :table (position) WHERE error IS NULL;

-- name: enqueue
-- One message, on the connection and in the transaction of the application.
INSERT INTO :table (key, message) VALUES (:key, :message);

-- name: find
-- Whether there is an outbox.
SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'paceline_outbox';

-- name: next
-- The first ?1 rows that were not refused, and how large they are; their texts are not touched.
SELECT position, octet_length(message) FROM paceline_outbox WHERE error IS NULL ORDER BY position LIMIT ?1;

-- name: texts
-- The rows at these positions, in order.
SELECT position, key, message, octet_length(message) FROM paceline_outbox
WHERE position IN (SELECT value FROM json_each(?1)) AND error IS NULL ORDER BY position;

-- name: oversized
-- The rows at these positions without their texts, which nobody wants to hold.
SELECT position, key, '', octet_length(message) FROM paceline_outbox
WHERE position IN (SELECT value FROM json_each(?1)) AND error IS NULL ORDER BY position;

-- name: taken
-- Deletes a row by position and key: its message is acknowledged.
DELETE FROM paceline_outbox WHERE position = ?1 AND key = ?2;

-- name: refused
-- Keeps why a row (position, key) was refused, at a moment.
UPDATE paceline_outbox SET error = ?3, refused_at = ?4 WHERE position = ?1 AND key = ?2;

-- name: facts
-- How many rows wait, how many were refused, and since when the first one waits.
SELECT count(*) FILTER (WHERE error IS NULL), count(*) FILTER (WHERE error IS NOT NULL),
       min(written_at) FILTER (WHERE error IS NULL)
FROM paceline_outbox;

-- name: list
-- Rows in order, refused ones alone (?1) or all, at most ?2, the beginning of their messages.
SELECT position, key, substr(message, 1, 2000), octet_length(message), written_at, refused_at, error
FROM paceline_outbox WHERE NOT ?1 OR error IS NOT NULL ORDER BY position LIMIT ?2;

-- name: retry
-- Refused rows with these keys, or all (?2), are tried once more.
UPDATE paceline_outbox SET error = NULL, refused_at = NULL
WHERE error IS NOT NULL AND (?2 OR key IN (SELECT value FROM json_each(?1)));

-- name: discard
-- Refused rows with these keys go.
DELETE FROM paceline_outbox WHERE error IS NOT NULL AND key IN (SELECT value FROM json_each(?1));
