-- Whose schema it is, in which version, and who owns it. These run before anything else is known of the database.

-- name: server_facts
-- What has to be right before anything is stored: version, encoding, durability, whether it takes writes, and the
-- process that serves this connection (another one than the connection was made to when a pooler is in between).
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS shown,
       current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,
       current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS standby,
       pg_backend_pid() AS backend;

-- name: find_schema
-- Whether the schema $1 is there.
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1);

-- name: schema_script
-- The text that makes the schema $1; a name cannot be bound to it.
SELECT format('CREATE SCHEMA %I', $1::text);

-- name: find_version
-- Whether the schema $1 says its version, and how many other tables it has.
SELECT to_regclass(format('%I.paceline_schema', $1::text)) IS NOT NULL AS ours,
       (SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relname <> 'paceline_schema') AS others;

-- name: version
-- The version of the schema, and the oldest program that may work with it. The first version does not say: there, only
-- programs of that version do.
SELECT version, coalesce((to_jsonb(known) ->> 'oldest')::integer, version) AS oldest FROM paceline_schema AS known;

-- name: programs
-- The nodes that have not ended, each with the newest schema that its program knows.
SELECT id, coalesce((to_jsonb(node) ->> 'program')::integer, 1) AS program FROM node WHERE ended_at IS NULL ORDER BY id;

-- name: make_version
-- Where the version is kept: one row.
CREATE TABLE paceline_schema (place integer PRIMARY KEY CHECK (place = 1), version integer NOT NULL);

-- name: put_version
-- Writes the version in the transaction of the step that leads to it.
INSERT INTO paceline_schema VALUES (1, $1)
ON CONFLICT (place) DO UPDATE SET version = excluded.version;

-- name: put_oldest
-- Writes the oldest program that may work with the schema, in the same transaction.
UPDATE paceline_schema SET oldest = $1;

-- name: lock
-- Takes the lock of the schema $1 for as long as the connection lives or until `unlock`: one at a time brings it up to
-- date and joins. False when another one has it.
SELECT pg_try_advisory_lock(1346587726, hashtext($1));

-- name: unlock
-- Lets it go.
SELECT pg_advisory_unlock(1346587726, hashtext($1));

-- name: lock_members
-- Waits until nobody joins, and keeps everybody from joining until the commit.
SELECT pg_advisory_xact_lock(1346587726, hashtext($1));

-- name: database_bytes
-- How much room the database takes.
SELECT pg_database_size(current_database());
