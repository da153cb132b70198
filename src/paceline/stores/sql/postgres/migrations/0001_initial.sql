-- The first schema. A message's life passes through narrow tables, one at a time: it is in `waiting` until its hand-over,
-- in `under_way` until that ends, then in `ended`, or in `waiting` again. So the rows that change are few, and what
-- a long-open transaction keeps from being cleaned up is not in the way of who reads on behind it. `message` is wide
-- and hardly ever changes, `attempt` is the journal that only grows.
-- All times are milliseconds since 1970, UTC. States are the numbers of model.states.State. Texts that something is
-- sorted or looked up by compare byte by byte, whatever the database was made with.

CREATE TABLE message (
  id bigint PRIMARY KEY,
  created_at bigint NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  queue text COLLATE "C" NOT NULL,
  channel text COLLATE "C" NOT NULL,
  account text COLLATE "C" NOT NULL,
  pool text COLLATE "C" NOT NULL,
  recipient text COLLATE "C" NOT NULL,
  priority integer NOT NULL,
  max_attempts bigint NOT NULL,
  timeout_ms bigint NOT NULL,
  content text COLLATE "C" NOT NULL,
  trace_id text COLLATE "C" NOT NULL,
  backoff text COLLATE "C",
  "group" text COLLATE "C",
  source text COLLATE "C",
  kind text COLLATE "C",
  campaign text COLLATE "C",
  batch bigint,
  metadata text COLLATE "C",
  callback_url text COLLATE "C",
  idempotency_key text COLLATE "C",
  -- What a settled call gave back to its sender. Written only where there is one.
  result text COLLATE "C",
  -- The last journal line's ending, copied here when the journal is cleaned before the message.
  outcome text COLLATE "C",
  code text COLLATE "C",
  text text COLLATE "C",
  reference text COLLATE "C"
);

-- Scheduled, pending and retrying messages.
CREATE TABLE waiting (
  id bigint PRIMARY KEY,
  flow bigint NOT NULL,
  state integer NOT NULL CHECK (state IN (1, 2, 4)),
  number bigint NOT NULL,
  attempts bigint NOT NULL,
  due_at bigint NOT NULL,
  turn bigint NOT NULL,
  expires_at bigint,
  sender text COLLATE "C" NOT NULL,
  started_at bigint
);

-- Hand-overs that are marked and not ended. There are never more of them than calls may be under way, so they are
-- counted when somebody asks. Number, sender and start are the open journal line.
CREATE TABLE under_way (
  id bigint PRIMARY KEY,
  flow bigint NOT NULL,
  number bigint NOT NULL,
  attempts bigint NOT NULL,
  due_at bigint NOT NULL,
  turn bigint NOT NULL,
  expires_at bigint,
  sender text COLLATE "C" NOT NULL,
  started_at bigint NOT NULL
);

CREATE TABLE ended (
  id bigint PRIMARY KEY,
  flow bigint NOT NULL,
  state integer NOT NULL CHECK (state >= 5),
  number bigint NOT NULL,
  attempts bigint NOT NULL,
  due_at bigint NOT NULL,
  turn bigint NOT NULL,
  expires_at bigint,
  sender text COLLATE "C" NOT NULL,
  started_at bigint,
  finished_at bigint
);

CREATE TABLE attempt (
  message bigint NOT NULL,
  number bigint NOT NULL,
  flow bigint NOT NULL,
  account text COLLATE "C" NOT NULL,
  recipient text COLLATE "C" NOT NULL,
  "group" text COLLATE "C",
  handed_over bigint NOT NULL,
  started bigint,
  finished bigint NOT NULL,
  outcome text COLLATE "C" NOT NULL,
  code text COLLATE "C",
  text text COLLATE "C",
  reference text COLLATE "C",
  PRIMARY KEY (message, number)
);

CREATE TABLE flow (
  number bigint PRIMARY KEY,
  lane text COLLATE "C" NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  campaign text COLLATE "C" NOT NULL,
  queue text COLLATE "C" NOT NULL,
  priority integer NOT NULL,
  account text COLLATE "C" NOT NULL
);

-- Counts of all but what is under way. Each node counts what it does under its own slot, so that no two wait for one
-- another here; the sum over the slots is the count, and a single one may be below zero. No index but the key, and room
-- in each page: a count that changes is then written into its own page and touches no index. Counts whose sum is nothing
-- stay until the next clean-up.
CREATE TABLE tally (
  flow bigint NOT NULL,
  sender text COLLATE "C" NOT NULL,
  state integer NOT NULL,
  slot integer NOT NULL,
  count bigint NOT NULL,
  PRIMARY KEY (flow, sender, state, slot)
) WITH (fillfactor = 50);

CREATE TABLE daily (
  day bigint NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  queue text COLLATE "C" NOT NULL,
  channel text COLLATE "C" NOT NULL,
  account text COLLATE "C" NOT NULL,
  slot integer NOT NULL,
  completed bigint NOT NULL,
  failed bigint NOT NULL,
  retries bigint NOT NULL,
  send_ms bigint NOT NULL,
  PRIMARY KEY (day, tenant, queue, channel, account, slot)
) WITH (fillfactor = 50);

CREATE TABLE account_note (
  account text COLLATE "C" NOT NULL,
  recipient text COLLATE "C" NOT NULL,
  "group" text COLLATE "C" NOT NULL,
  flood_until bigint,
  stopped text COLLATE "C",
  PRIMARY KEY (account, recipient, "group")
);

CREATE TABLE idempotency (
  tenant text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  message bigint NOT NULL,
  fingerprint text COLLATE "C",
  PRIMARY KEY (tenant, key)
);

-- `revision` grows with every change of any document: what a node has not seen is what is above its last look.
CREATE TABLE document (
  kind text COLLATE "C" NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  body text COLLATE "C" NOT NULL,
  updated_at bigint NOT NULL,
  revision bigint NOT NULL,
  PRIMARY KEY (kind, tenant, name)
);

-- Documents that were deleted, for nodes that have not heard of it.
CREATE TABLE removal (
  kind text COLLATE "C" NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  revision bigint NOT NULL,
  PRIMARY KEY (kind, tenant, name)
);

-- The newest revision. Who changes a document holds this row until its commit, so that revisions appear in order.
CREATE TABLE revision (
  place integer PRIMARY KEY CHECK (place = 1),
  newest bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO revision VALUES (1, 0);

-- One row for each process from its start to its end, with its lease by the database's clock. `slot` is free again after
-- the end. `machine` and `process` tell whether it can still be alive. `off`: by how many milliseconds its clock was apart
-- from the database's, at most; `boot` and `boot_offset` tell the same of the database's clock since then.
CREATE TABLE node (
  id text COLLATE "C" PRIMARY KEY,
  slot integer NOT NULL CHECK (slot BETWEEN 0 AND 63),
  name text NOT NULL,
  role text COLLATE "C" NOT NULL,
  machine text NOT NULL,
  process bigint NOT NULL,
  started_at bigint NOT NULL,
  heartbeat_at bigint NOT NULL,
  lease_ends_at bigint NOT NULL,
  off bigint NOT NULL,
  boot text NOT NULL,
  boot_offset bigint NOT NULL,
  ended_at bigint
) WITH (fillfactor = 50);

CREATE UNIQUE INDEX node_slot ON node (slot) WHERE ended_at IS NULL;

-- What lets a node write. Each commit begins by writing its number into its node's row, where the node has not been
-- ended: after a connection was lost in the middle of a commit, the row tells whether the commit was made, and whoever
-- ends a node waits here for its last commit. Apart from `node`, so that a lease is renewed while a commit takes its
-- time. `greatest_id` is of all messages ever, also of deleted ones.
CREATE TABLE fence (
  node text COLLATE "C" PRIMARY KEY,
  batch bigint NOT NULL,
  greatest_id bigint NOT NULL,
  ended boolean NOT NULL
) WITH (fillfactor = 10);

-- Who owns what. `fencing` grows with each change of owner.
CREATE TABLE partition (
  number integer PRIMARY KEY,
  owner text COLLATE "C",
  fencing bigint NOT NULL
) WITH (fillfactor = 50);

INSERT INTO partition SELECT number, NULL, 0 FROM generate_series(0, 63) AS number;

-- Word for the owner of a partition that another node stored messages there: read and deleted by the owner.
CREATE TABLE wake (
  place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  flow bigint NOT NULL,
  turn bigint NOT NULL,
  id bigint NOT NULL,
  many bigint NOT NULL,
  due_at bigint,
  expires_at bigint
);

-- The last digits of a flow's number are its partition (model.nodes).
CREATE INDEX wake_partition ON wake ((flow & 63));
CREATE INDEX document_revision ON document (revision);
CREATE INDEX removal_revision ON removal (revision);

-- A flow's line: where the lanes take their next entries from.
CREATE INDEX waiting_pending ON waiting (flow, turn, id) WHERE state = 2;
-- What has to wait for a moment, and what ends at one, partition by partition: each is its owner's to look after.
CREATE INDEX waiting_due ON waiting ((flow & 63), state, due_at, id) WHERE state IN (1, 4);
CREATE INDEX waiting_expiry ON waiting ((flow & 63), expires_at, id) WHERE expires_at IS NOT NULL;
-- Lists of the endings that people look for. Completed ones are most of the table and need no index.
CREATE INDEX ended_listed ON ended (state, id) WHERE state IN (6, 7, 8, 9);

CREATE INDEX message_batch ON message (batch, id) WHERE batch IS NOT NULL;
CREATE INDEX message_campaign ON message (campaign, id) WHERE campaign IS NOT NULL;
CREATE INDEX message_group ON message ("group", id) WHERE "group" IS NOT NULL;
CREATE INDEX message_recipient ON message (recipient, id);

-- What limits are rebuilt from after a start.
CREATE INDEX attempt_account ON attempt (account, finished) WHERE account <> '';

-- Where every message stands, wherever its row is.
CREATE VIEW entry (id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, finished_at) AS
SELECT id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, NULL::bigint FROM waiting
UNION ALL
SELECT id, flow, 3, number, attempts, due_at, turn, expires_at, sender, started_at, NULL::bigint FROM under_way
UNION ALL
SELECT id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, finished_at FROM ended;

-- All counts.
CREATE VIEW counted (flow, sender, state, count) AS
SELECT flow, sender, state, sum(count)::bigint FROM tally GROUP BY flow, sender, state HAVING sum(count) <> 0
UNION ALL
SELECT flow, sender, 3, count(*) FROM under_way GROUP BY flow, sender;

-- Rows come and go all the time: cleaned up after little, so that the tables stay as small as what is in them.
ALTER TABLE waiting SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE under_way SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                           autovacuum_vacuum_cost_delay = 0);
ALTER TABLE tally SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                       autovacuum_vacuum_cost_delay = 0);
ALTER TABLE wake SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                      autovacuum_vacuum_cost_delay = 0);
