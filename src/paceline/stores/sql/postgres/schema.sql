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
-- The version of the schema.
SELECT version FROM paceline_schema;

-- name: make_version
-- Where the version is kept: one row.
CREATE TABLE paceline_schema (place integer PRIMARY KEY CHECK (place = 1), version integer NOT NULL);

-- name: put_version
-- Writes the version in the transaction of the step that leads to it.
INSERT INTO paceline_schema VALUES (1, $1)
ON CONFLICT (place) DO UPDATE SET version = excluded.version;

-- name: lock
-- Takes the lock of the schema $1 for as long as the connection lives; false when another one has it.
SELECT pg_try_advisory_lock(1346587726, hashtext($1));

-- name: unlock
-- Lets it go.
SELECT pg_advisory_unlock(1346587726, hashtext($1));

-- name: end_former
-- Ends the connection named $2 if it still holds the lock of the schema $1: the server may take long to notice that
-- nobody is at its other end any more.
SELECT count(pg_terminate_backend(held.pid))
FROM pg_locks AS held JOIN pg_stat_activity AS session ON session.pid = held.pid
WHERE held.locktype = 'advisory' AND held.granted AND held.classid = 1346587726::oid
  AND held.objid = (hashtext($1)::bigint & 4294967295)::oid
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND session.application_name = $2;

-- name: owner
-- Who owns the schema and what was committed last.
SELECT fencing, batch, machine, process, name, released FROM owner;

-- name: lock_owner
-- The same; waits until no other transaction has the row in its hands.
SELECT fencing, batch, machine, process, name, released FROM owner FOR UPDATE;

-- name: take
-- Become the owner: machine, process, name for people. Answers the fencing number.
UPDATE owner SET fencing = fencing + 1, batch = 0, machine = $1, process = $2, name = $3, released = false
RETURNING fencing;

-- name: fence
-- The first statement of each commit: it goes on only while fencing number $1 is the newest, and notes that commit
-- number $2 was made, with the greatest id $3 of the messages in it.
UPDATE owner SET batch = $2, greatest_id = greatest(greatest_id, $3) WHERE fencing = $1 RETURNING fencing;

-- name: release
-- No longer the owner $1.
UPDATE owner SET released = true WHERE fencing = $1;

-- name: greatest_id
-- The greatest id ever stored, also when that message is deleted.
SELECT greatest_id FROM owner;

-- name: database_bytes
-- How much room the database takes.
SELECT pg_database_size(current_database());
