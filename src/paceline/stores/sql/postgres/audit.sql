-- What the audit reads: whole tables, row by row, in an order that lets it look at each row once.

-- name: audit_sizes
-- How much there is to look at.
SELECT (SELECT count(*) FROM entry) AS messages, (SELECT count(*) FROM attempt) AS lines,
       pg_database_size(current_database()) AS bytes;

-- name: audit_told_to_wait
-- Accounts that a provider ever told to wait.
SELECT DISTINCT account FROM attempt WHERE outcome = 'RateLimited' AND account <> '' ORDER BY account;

-- name: audit_sends
-- Sends that finished after $1 as Sent, account by account, by start.
SELECT account, message, flow, recipient, "group", handed_over, started, finished, outcome, code
FROM attempt
WHERE account <> '' AND finished > $1 AND outcome <> 'Withheld'
ORDER BY account, started, finished, message;

-- name: audit_sends_of_one
-- The same of the account $2.
SELECT account, message, flow, recipient, "group", handed_over, started, finished, outcome, code
FROM attempt
WHERE account = $2 AND account <> '' AND finished > $1 AND outcome <> 'Withheld'
ORDER BY account, started, finished, message;

-- name: audit_sends_in_time
-- Sends of all accounts that finished after $1 as Sent, by start.
SELECT account, message, flow, recipient, "group", handed_over, started, finished, outcome, code
FROM attempt
WHERE account <> '' AND finished > $1 AND outcome <> 'Withheld'
ORDER BY started, finished, message;

-- name: audit_standings
-- Messages from the id $1 as Standing.
SELECT entry.id, entry.flow, entry.state, entry.number, entry.attempts, entry.due_at, entry.turn, entry.expires_at,
       entry.sender, entry.started_at, entry.finished_at, message.created_at, message.channel, message.outcome
FROM entry LEFT JOIN message ON message.id = entry.id
WHERE entry.id >= $1
ORDER BY entry.id;

-- name: audit_lines
-- Journal lines of the messages from the id $1 as Attempt.
SELECT message, number, flow, account, handed_over, started, finished, outcome, code, NULL::text, NULL::text
FROM attempt
WHERE message >= $1
ORDER BY message, number;

-- name: audit_counts
-- Kept counts beside real ones, as Counted. Messages under way have no count.
SELECT flow, sender, state, sum(kept)::bigint, sum(there)::bigint
FROM (
  SELECT flow, sender, state, count AS kept, 0 AS there FROM tally
  UNION ALL
  SELECT flow, sender, state, 0, count(*) FROM entry WHERE state <> 3 GROUP BY flow, sender, state
) AS counts
GROUP BY flow, sender, state HAVING sum(kept) <> 0 OR sum(there) <> 0
ORDER BY flow, sender, state;

-- name: audit_days
-- Kept figures of each day beside the journal's, as DayFigures. A line knows its queue and channel by its flow, so
-- that those of messages that are deleted count too. A person's settling has no account: it counts for the sender
-- of the hand-over before it.
WITH said AS (
  SELECT line.finished / 86400000 AS day, line.flow, line.outcome, line.finished - line.started AS took,
         CASE WHEN line.outcome IN ('confirm', 'deny')
              THEN coalesce((SELECT nullif(earlier.account, '') FROM attempt AS earlier
                             WHERE earlier.message = line.message AND earlier.number = line.number - 1),
                            (SELECT entry.sender FROM entry WHERE entry.id = line.message), '')
              ELSE line.account END AS account
  FROM attempt AS line
  WHERE line.outcome IN ('Accepted', 'confirm', 'deny', 'Permanent', 'Temporary', 'Unknown', 'Moved')
),
told AS (
  SELECT day, flow, account, count(*) FILTER (WHERE outcome = 'Accepted') AS accepted,
         count(*) FILTER (WHERE outcome = 'confirm') AS confirmed, count(*) FILTER (WHERE outcome = 'deny') AS denied,
         count(*) FILTER (WHERE outcome = 'Permanent') AS refused,
         count(*) FILTER (WHERE outcome IN ('Temporary', 'Unknown', 'Moved')) AS open,
         coalesce(sum(took) FILTER (WHERE outcome IN ('Accepted', 'Permanent')), 0) AS sure_ms,
         coalesce(sum(took) FILTER (WHERE outcome NOT IN ('confirm', 'deny')), 0) AS most_ms
  FROM said GROUP BY day, flow, account
)
SELECT day, tenant, queue, channel, account, sum(completed)::bigint, sum(failed)::bigint, sum(retries)::bigint,
       sum(send_ms)::bigint, sum(accepted)::bigint, sum(confirmed)::bigint, sum(denied)::bigint, sum(refused)::bigint,
       sum(open)::bigint, sum(sure_ms)::bigint, sum(most_ms)::bigint
FROM (
  SELECT day, tenant, queue, channel, account, completed, failed, retries, send_ms, 0 AS accepted, 0 AS confirmed,
         0 AS denied, 0 AS refused, 0 AS open, 0 AS sure_ms, 0 AS most_ms
  FROM daily
  UNION ALL
  SELECT told.day, flow.tenant, flow.queue, split_part(flow.lane, '/', 2), told.account, 0, 0, 0, 0, told.accepted,
         told.confirmed, told.denied, told.refused, told.open, told.sure_ms, told.most_ms
  FROM told JOIN flow ON flow.number = told.flow
) AS both_sides
GROUP BY day, tenant, queue, channel, account
ORDER BY day, tenant, queue, channel, account;

-- name: audit_leftovers
-- Rows that point to nothing, as Leftover: what, how many, the first ids.
WITH lost (what, id) AS (
  SELECT 'entry without its message', entry.id
  FROM entry LEFT JOIN message ON message.id = entry.id WHERE message.id IS NULL
  UNION ALL
  SELECT 'message without its entry', message.id
  FROM message LEFT JOIN entry ON entry.id = message.id WHERE entry.id IS NULL
  UNION ALL
  SELECT 'message with two entries', id FROM entry GROUP BY id HAVING count(*) > 1
  UNION ALL
  SELECT 'idempotency key without its message', known.message
  FROM idempotency AS known LEFT JOIN message ON message.id = known.message WHERE message.id IS NULL
  UNION ALL
  SELECT 'entry of an unknown flow', entry.id
  FROM entry LEFT JOIN flow ON flow.number = entry.flow WHERE flow.number IS NULL
  UNION ALL
  SELECT 'journal line of an unknown flow', line.message
  FROM attempt AS line LEFT JOIN flow ON flow.number = line.flow WHERE flow.number IS NULL
),
numbered AS (SELECT what, id, row_number() OVER (PARTITION BY what ORDER BY id) AS place FROM lost)
SELECT what, count(*), array_agg(id ORDER BY id) FILTER (WHERE place <= 20) FROM numbered GROUP BY what ORDER BY what;

-- name: audit_integrity
-- What the server itself knows of damage: pages whose checksum was wrong, indexes that were never finished.
SELECT format('%s pages of the database had a wrong checksum', checksum_failures)
FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0
UNION ALL
SELECT format('the index %s is not valid', indexrelid::regclass)
FROM pg_index JOIN pg_class ON pg_class.oid = indrelid
WHERE NOT indisvalid AND relnamespace = to_regnamespace($1);
