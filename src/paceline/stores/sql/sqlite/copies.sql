-- What a copy of the database is looked at with, and marked with, before it gets its name.

-- name: contents
-- How many messages there are, how many of them wait or are under way, and how many configuration rows.
SELECT json_object(
  'messages', (SELECT count(*) FROM message),
  'waiting', (SELECT count(*) FROM entry WHERE state IN (1, 2, 4)),
  'under_way', (SELECT count(*) FROM entry WHERE state = 3),
  'documents', (SELECT count(*) FROM document));

-- name: write_documents
-- Inserts or replaces configuration rows (fields of Document) in a database that nobody serves.
INSERT INTO document (kind, tenant, name, body, updated_at)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4
FROM jsonb_each(?1) WHERE true ORDER BY key
ON CONFLICT DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at;
