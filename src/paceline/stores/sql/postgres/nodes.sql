-- The nodes on one schema: who they are, until when, and what each of them owns. Times are the database's own, in
-- milliseconds since 1970.

-- name: join
-- A new node (id, name, role, machine, process, lease in ms, program) in the lowest free slot, which is answered; no row
-- when all are taken.
INSERT INTO node (id, slot, name, role, machine, process, started_at, heartbeat_at, lease_ends_at, off, boot, boot_offset,
                  program)
SELECT $1, free.slot, $2, $3, $4, $5, clock.now, clock.now, clock.now + $6::bigint, 0, '', 0, $7
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) AS clock,
     (SELECT slot FROM generate_series(0, 63) AS slot
      WHERE NOT EXISTS (SELECT FROM node WHERE node.slot = slot.slot AND ended_at IS NULL) ORDER BY slot LIMIT 1) AS free
RETURNING slot;

-- name: put_fence
-- From now on the node $1 may write.
INSERT INTO fence (node, batch, greatest_id, ended) SELECT $1, 0, coalesce(max(greatest_id), 0), false FROM fence;

-- name: fence
-- The first statement of each commit: it goes on only while the node $1 has not been ended, and notes that commit number
-- $2 was made, with the greatest id $3 of the messages in it.
UPDATE fence SET batch = $2, greatest_id = greatest(greatest_id, $3) WHERE node = $1 AND NOT ended RETURNING node;

-- name: last_commit
-- The last commit of the node $1 and whether it was ended; waits until no other transaction has the row in its hands.
SELECT batch, ended FROM fence WHERE node = $1 FOR UPDATE;

-- name: end_former
-- Ends other connections named $1: the server may take long to notice that nobody is at the other end any more.
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid();

-- name: renew
-- Renews the lease of the node $1 for $2 ms, unless it was ended. Notes that its clock was found to be off by up to $3, and
-- that on the boot $4 of its machine $5 ms have passed. Answers the database's time.
UPDATE node SET heartbeat_at = clock.now, lease_ends_at = clock.now + $2::bigint, off = greatest(off, $3::bigint),
  boot = $4, boot_offset = clock.now - $5::bigint
FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) AS clock
WHERE id = $1 AND ended_at IS NULL
RETURNING clock.now;

-- name: time
-- The database's time.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- name: nodes
-- The nodes that have not ended, as Node without `lapsed`, with machine and whether the lease ran out.
SELECT id, slot, name, role, process, started_at, heartbeat_at, lease_ends_at, off, machine,
       lease_ends_at < extract(epoch FROM clock_timestamp()) * 1000 AS late
FROM node WHERE ended_at IS NULL ORDER BY id;

-- name: owners
-- The owner of each partition; nobody where that node has ended.
SELECT partition.number, CASE WHEN fence.ended THEN NULL ELSE fence.node END
FROM partition LEFT JOIN fence ON fence.node = partition.owner ORDER BY partition.number;

-- name: tidings
-- Whether word was left for the partitions $1, and the newest revisions of documents and of wide limits.
SELECT EXISTS (SELECT FROM wake WHERE (flow & 63) = ANY ($1::bigint[])) AS woken, (SELECT newest FROM revision) AS revision,
       (SELECT newest FROM wide_revision) AS wide;

-- name: lock_lapsed
-- Locks the node $1 if it has not been ended and its lease ran out, or $2: it is known to be gone.
SELECT id FROM node
WHERE id = $1 AND ended_at IS NULL AND ($2 OR lease_ends_at < extract(epoch FROM clock_timestamp()) * 1000)
FOR UPDATE;

-- name: end_fence
-- From this commit on the node $1 writes nothing. Waits for what it is committing just now.
UPDATE fence SET ended = true WHERE node = $1;

-- name: end_node
-- The node $1 has ended.
UPDATE node SET ended_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint WHERE id = $1 AND ended_at IS NULL;

-- name: free
-- What the node $1 owned is nobody's; answers the partitions.
WITH its AS (SELECT number FROM partition WHERE owner = $1 ORDER BY number FOR UPDATE)
UPDATE partition SET owner = NULL, fencing = fencing + 1 FROM its WHERE partition.number = its.number
RETURNING partition.number;

-- name: take
-- The node $1 takes those of the partitions $2 that nobody owns, or a node that is known to have ended; answers them. (One
-- that this statement does not know may have joined a moment ago and live.)
WITH free AS (
  SELECT number FROM partition
  WHERE number = ANY ($2::integer[])
    AND (owner IS NULL OR EXISTS (SELECT FROM fence WHERE node = partition.owner AND ended))
  ORDER BY number FOR UPDATE
)
UPDATE partition SET owner = $1, fencing = fencing + 1 FROM free WHERE partition.number = free.number
RETURNING partition.number;

-- name: give
-- The node $1 gives the partitions $3 to the node $2, if that one lives; answers them.
WITH its AS (
  SELECT number FROM partition
  WHERE number = ANY ($3::integer[]) AND owner = $1 AND EXISTS (SELECT FROM fence WHERE node = $2 AND NOT ended)
  ORDER BY number FOR UPDATE
)
UPDATE partition SET owner = $2, fencing = fencing + 1 FROM its WHERE partition.number = its.number
RETURNING partition.number;

-- name: other_senders
-- The names of the other nodes than $1 that may send.
SELECT name || ' (process ' || process || ')' FROM node WHERE id <> $1 AND role <> 'api' AND ended_at IS NULL ORDER BY id;

-- name: apart
-- By how many milliseconds a time that another node wrote in the last $2 ms may be off, seen from the node $1: the most that
-- a clock was apart from the database's, and how far the database's own clock was moved since then, where a node on the same
-- boot of the same machine tells. A millisecond for rounding is in it.
SELECT coalesce(max(other.off + abs(other.moved)), 0) + me.off + 1
FROM node AS me
LEFT JOIN LATERAL (
  SELECT node.off, CASE WHEN node.boot <> '' AND node.boot = me.boot THEN me.boot_offset - node.boot_offset ELSE 0 END AS moved,
         node.heartbeat_at
  FROM node WHERE node.id <> me.id
) AS other ON other.heartbeat_at + other.moved > me.heartbeat_at - $2::bigint - abs(other.moved)
WHERE me.id = $1 GROUP BY me.off;

-- name: roll
-- The nodes that live or ended in the last $1 ms, as Known. What a program knows is told by stores that note it.
SELECT node.id, node.name, node.role, node.process, node.started_at, node.heartbeat_at, node.lease_ends_at, node.ended_at, node.off,
       coalesce((to_jsonb(node) ->> 'program')::bigint, 0), its.partitions, its.calls
FROM node
CROSS JOIN LATERAL (
  SELECT count(*) AS partitions,
         coalesce(sum((SELECT count(*) FROM under_way WHERE (flow & 63) = partition.number)), 0)::bigint AS calls
  FROM partition WHERE partition.owner = node.id AND node.ended_at IS NULL
) AS its
WHERE node.ended_at IS NULL OR node.ended_at > extract(epoch FROM clock_timestamp()) * 1000 - $1::bigint
ORDER BY node.started_at, node.id;

-- name: free_partitions
-- How many partitions are nobody's, and the database's time.
SELECT (SELECT count(*) FROM partition LEFT JOIN fence ON fence.node = partition.owner
        WHERE partition.owner IS NULL OR fence.ended), (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- name: forget_nodes
-- Nodes that ended before $1 go, with their fences: what they wrote is older than any limit looks back.
WITH old AS (DELETE FROM node WHERE ended_at < $1 RETURNING id),
fences AS (DELETE FROM fence USING old WHERE fence.node = old.id)
SELECT count(*) FROM old;

-- name: greatest_id
-- The greatest id ever stored, also when that message is deleted.
SELECT coalesce(max(greatest_id), 0) FROM fence;

-- name: tell
-- Tells all nodes that listen; lost where nobody does.
SELECT pg_notify($1, $2);
