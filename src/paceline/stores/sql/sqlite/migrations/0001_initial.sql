-- The first schema. Three shapes of table: `message` is wide and hardly ever changes, `entry` is the narrow
-- row of the same id that every step of a message's life rewrites, `attempt` is the journal that only grows.
-- A hand-over under way is not in the journal yet: number, sender and start on the entry are its line.
-- All times are milliseconds since 1970, UTC. States are the numbers of model.states.State.

CREATE TABLE message (
  -- AUTOINCREMENT only so that SQLite remembers the greatest id ever stored, also of deleted messages.
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  created_at INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  queue TEXT NOT NULL,
  channel TEXT NOT NULL,
  account TEXT NOT NULL,
  pool TEXT NOT NULL,
  recipient TEXT NOT NULL,
  priority INTEGER NOT NULL,
  max_attempts INTEGER NOT NULL,
  timeout_ms INTEGER NOT NULL,
  content TEXT NOT NULL,
  trace_id TEXT NOT NULL,
  backoff TEXT,
  "group" TEXT,
  source TEXT,
  kind TEXT,
  campaign TEXT,
  batch INTEGER,
  metadata TEXT,
  callback_url TEXT,
  idempotency_key TEXT,
  -- What a settled call gave back to its sender. Written only where there is one.
  result TEXT,
  -- The last journal line's ending, copied here when the journal is cleaned before the message.
  outcome TEXT,
  code TEXT,
  text TEXT,
  reference TEXT
) STRICT;

CREATE TABLE entry (
  id INTEGER PRIMARY KEY,
  flow INTEGER NOT NULL,
  state INTEGER NOT NULL,
  number INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  turn INTEGER NOT NULL,
  expires_at INTEGER,
  sender TEXT NOT NULL,
  started_at INTEGER,
  finished_at INTEGER
) STRICT;

CREATE TABLE attempt (
  message INTEGER NOT NULL,
  number INTEGER NOT NULL,
  flow INTEGER NOT NULL,
  account TEXT NOT NULL,
  recipient TEXT NOT NULL,
  "group" TEXT,
  handed_over INTEGER NOT NULL,
  started INTEGER,
  finished INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  code TEXT,
  text TEXT,
  reference TEXT,
  PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE flow (
  number INTEGER PRIMARY KEY,
  lane TEXT NOT NULL,
  tenant TEXT NOT NULL,
  campaign TEXT NOT NULL,
  queue TEXT NOT NULL,
  priority INTEGER NOT NULL,
  account TEXT NOT NULL
) STRICT;

CREATE TABLE tally (
  flow INTEGER NOT NULL,
  sender TEXT NOT NULL,
  state INTEGER NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (flow, sender, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE daily (
  day INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  queue TEXT NOT NULL,
  channel TEXT NOT NULL,
  account TEXT NOT NULL,
  completed INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  retries INTEGER NOT NULL,
  send_ms INTEGER NOT NULL,
  PRIMARY KEY (day, tenant, queue, channel, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE account_note (
  account TEXT NOT NULL,
  recipient TEXT NOT NULL,
  "group" TEXT NOT NULL,
  flood_until INTEGER,
  stopped TEXT,
  PRIMARY KEY (account, recipient, "group")
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  message INTEGER NOT NULL,
  fingerprint TEXT,
  PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE document (
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  body TEXT NOT NULL,
  updated_at INTEGER NOT NULL,
  PRIMARY KEY (kind, tenant, name)
) STRICT, WITHOUT ROWID;

-- A flow's line: where the lanes take their next entries from.
CREATE INDEX entry_pending ON entry (flow, turn) WHERE state = 2;
-- What has to wait for a moment, and what ends at one.
CREATE INDEX entry_due ON entry (due_at) WHERE state IN (1, 4);
CREATE INDEX entry_expiry ON entry (expires_at) WHERE expires_at IS NOT NULL AND state IN (1, 2, 4);
-- Hand-overs under way at start, and lists of the endings that people look for. Waiting messages have the
-- indexes above; completed ones are most of the table, so that a list of them needs no index.
CREATE INDEX entry_state ON entry (state) WHERE state IN (3, 6, 7, 8, 9);

CREATE INDEX message_batch ON message (batch) WHERE batch IS NOT NULL;
CREATE INDEX message_campaign ON message (campaign) WHERE campaign IS NOT NULL;
CREATE INDEX message_group ON message ("group") WHERE "group" IS NOT NULL;
-- Recipients come in no order. Cut into stretches of about a minute of ids (2^37 of them), each insert
-- falls into the small part of the index that is in memory anyway; a search visits every stretch.
CREATE INDEX message_recipient ON message (id >> 37, recipient);

-- What limits are rebuilt from after a start.
CREATE INDEX attempt_account ON attempt (account, finished) WHERE account <> '';
-- Counts that fell to nothing are removed at the end of each transaction.
CREATE INDEX tally_nothing ON tally (flow) WHERE count = 0;

-- All counts. Those of messages under way are counted from their index: there are never more of them than
-- calls may be under way, and not keeping a count of them spares two writes a message.
CREATE VIEW counted (flow, sender, state, count) AS
SELECT flow, sender, state, count FROM tally
UNION ALL
SELECT flow, sender, 3, count(*) FROM entry INDEXED BY entry_state
WHERE state = 3 AND state IN (3, 6, 7, 8, 9) GROUP BY flow, sender;
