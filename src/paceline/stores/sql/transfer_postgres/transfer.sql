-- A store moved to another one, table by table: the same rows in the same order, whatever kind of store it is in.
-- Only a store that this process owns is read or written like this.

-- name: read_document
-- All configuration rows but those about the installation itself.
SELECT kind, tenant, name, body, updated_at FROM document WHERE kind <> 'installation' ORDER BY kind, tenant, name;

-- name: read_flow
-- All flows.
SELECT number, lane, tenant, campaign, queue, priority, account FROM flow ORDER BY number;

-- name: read_account_note
-- All notes of accounts.
SELECT account, recipient, "group", flood_until, stopped FROM account_note ORDER BY account, recipient, "group";

-- name: read_idempotency
-- All keys that are known.
SELECT tenant, key, message, fingerprint FROM idempotency ORDER BY tenant, key;

-- name: read_tally
-- All counts that are kept; what is under way is counted when somebody asks.
SELECT flow, sender, state, sum(count)::bigint FROM counted WHERE state <> 3 GROUP BY flow, sender, state
ORDER BY flow, sender, state;

-- name: read_daily
-- All figures of days.
SELECT day, tenant, queue, channel, account, sum(completed)::bigint, sum(failed)::bigint, sum(retries)::bigint, sum(send_ms)::bigint
FROM daily GROUP BY day, tenant, queue, channel, account ORDER BY day, tenant, queue, channel, account;

-- name: read_attempt
-- The journal.
SELECT message, number, flow, account, recipient, "group", handed_over, started, finished, outcome, code, text, reference
FROM attempt ORDER BY message, number;

-- name: read_entry
-- Where every message stands.
SELECT id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, finished_at
FROM entry ORDER BY id;

-- name: read_message
-- Every message.
SELECT id, created_at, tenant, queue, channel, account, pool, recipient, priority, max_attempts, timeout_ms, content, trace_id,
       backoff, "group", source, kind, campaign, batch, metadata, callback_url, idempotency_key, result, outcome, code, text,
       reference
FROM message ORDER BY id;

-- name: sizes
-- How many rows each of these has, in the order in which they are read.
SELECT (SELECT count(*) FROM document WHERE kind <> 'installation'), (SELECT count(*) FROM flow),
       (SELECT count(*) FROM account_note), (SELECT count(*) FROM idempotency),
       (SELECT count(*) FROM (SELECT DISTINCT flow, sender, state FROM counted WHERE state <> 3) AS kept),
       (SELECT count(*) FROM (SELECT DISTINCT day, tenant, queue, channel, account FROM daily) AS days),
       (SELECT count(*) FROM attempt), (SELECT count(*) FROM entry), (SELECT count(*) FROM message);

-- name: empty
-- Throws an unfinished copy away, all but what the store knows of itself.
TRUNCATE message, waiting, under_way, ended, attempt, flow, tally, daily, account_note, idempotency, removal, wake;

-- name: empty_documents
-- The same for its configuration.
DELETE FROM document WHERE kind <> 'installation';

-- name: keep_greatest_id
-- The greatest id ever stored in the store that is copied.
UPDATE fence SET greatest_id = greatest(greatest_id, $1);

-- name: is_empty
-- Whether nothing was ever kept here.
SELECT NOT EXISTS (SELECT FROM message) AND NOT EXISTS (SELECT FROM attempt) AND NOT EXISTS (SELECT FROM document);
