-- What the audit reads: whole tables, row by row, in an order that lets it look at each row once.

-- name: audit_sizes
-- How much there is to look at.
SELECT json_object(
  'messages', (SELECT count(*) FROM entry), 'lines', (SELECT count(*) FROM attempt));

-- name: audit_told_to_wait
-- Accounts that a provider ever told to wait.
SELECT json_group_array(account) FROM (
  SELECT DISTINCT account FROM attempt WHERE outcome = 'RateLimited' AND account <> '');

-- name: audit_sends
-- Sends that finished after ?1 as Sent, account by account, by start. The index gives the accounts; only the sends
-- of one account at a time are sorted.
SELECT account, message, flow, recipient, "group", handed_over, started, finished, outcome, code
FROM attempt INDEXED BY attempt_account
WHERE account <> '' AND finished > ?1 AND outcome <> 'Withheld'
ORDER BY account, started, finished, message;

-- name: audit_sends_of_one
-- The same of the account ?2.
SELECT account, message, flow, recipient, "group", handed_over, started, finished, outcome, code
FROM attempt INDEXED BY attempt_account
WHERE account = ?2 AND account <> '' AND finished > ?1 AND outcome <> 'Withheld'
ORDER BY account, started, finished, message;

-- name: audit_sends_in_time
-- Sends of all accounts that finished after ?1 as Sent, by start; sorted in a temporary file where they are many.
SELECT account, message, flow, recipient, "group", handed_over, started, finished, outcome, code
FROM attempt
WHERE account <> '' AND finished > ?1 AND outcome <> 'Withheld'
ORDER BY started, finished, message;

-- name: audit_standings
-- Messages from the id ?1 as Standing.
SELECT entry.id, entry.flow, entry.state, entry.number, entry.attempts, entry.due_at, entry.turn, entry.expires_at,
       entry.sender, entry.started_at, entry.finished_at, message.created_at, message.channel, message.outcome
FROM entry LEFT JOIN message ON message.id = entry.id
WHERE entry.id >= ?1
ORDER BY entry.id;

-- name: audit_lines
-- Journal lines of the messages from the id ?1 as Attempt.
SELECT message, number, flow, account, handed_over, started, finished, outcome, code, NULL, NULL
FROM attempt
WHERE message >= ?1
ORDER BY message, number;

-- name: audit_counts
-- Kept counts beside real ones, as Counted. Messages under way have no count.
SELECT flow, sender, state, sum(kept), sum(there)
FROM (
  SELECT flow, sender, state, count AS kept, 0 AS there FROM tally
  UNION ALL
  SELECT flow, sender, state, 0, count(*) FROM entry WHERE state <> 3 GROUP BY flow, sender, state
)
GROUP BY flow, sender, state;

-- name: audit_days
-- Kept figures of each day beside the journal's, as DayFigures. A line knows its queue and channel by its flow, so
-- that those of messages that are deleted count too. A person's settling has no account: it counts for the sender
-- of the hand-over before it.
WITH told AS (
  SELECT line.finished / 86400000 AS day, line.flow AS flow,
         iif(line.outcome IN ('confirm', 'deny'),
             coalesce((SELECT nullif(earlier.account, '') FROM attempt AS earlier
                       WHERE earlier.message = line.message AND earlier.number = line.number - 1),
                      (SELECT sender FROM entry WHERE id = line.message), ''),
             line.account) AS account,
         sum(line.outcome = 'Accepted') AS accepted, sum(line.outcome = 'confirm') AS confirmed,
         sum(line.outcome = 'deny') AS denied, sum(line.outcome = 'Permanent') AS refused,
         sum(line.outcome IN ('Temporary', 'Unknown', 'Moved')) AS open,
         sum(iif(line.outcome IN ('Accepted', 'Permanent'), line.finished - line.started, 0)) AS sure_ms,
         sum(iif(line.outcome IN ('Accepted', 'Permanent', 'Temporary', 'Unknown', 'Moved'),
                 line.finished - line.started, 0)) AS most_ms
  FROM attempt AS line
  WHERE line.outcome IN ('Accepted', 'confirm', 'deny', 'Permanent', 'Temporary', 'Unknown', 'Moved')
  GROUP BY 1, 2, 3
)
SELECT day, tenant, queue, channel, account, sum(completed), sum(failed), sum(retries), sum(send_ms),
       sum(accepted), sum(confirmed), sum(denied), sum(refused), sum(open), sum(sure_ms), sum(most_ms)
FROM (
  SELECT day, tenant, queue, channel, account, completed, failed, retries, send_ms, 0 AS accepted, 0 AS confirmed,
         0 AS denied, 0 AS refused, 0 AS open, 0 AS sure_ms, 0 AS most_ms
  FROM daily
  UNION ALL
  SELECT told.day, flow.tenant, flow.queue,
         substr(flow.lane, instr(flow.lane, '/') + 1, instr(substr(flow.lane, instr(flow.lane, '/') + 1), '/') - 1),
         told.account, 0, 0, 0, 0, told.accepted, told.confirmed, told.denied, told.refused, told.open, told.sure_ms,
         told.most_ms
  FROM told JOIN flow ON flow.number = told.flow
)
GROUP BY day, tenant, queue, channel, account;

-- name: audit_leftovers
-- Rows that point to nothing, as Leftover: what, how many, the first ids.
WITH lost (what, id) AS (
  SELECT 'entry without its message', entry.id
  FROM entry LEFT JOIN message ON message.id = entry.id WHERE message.id IS NULL
  UNION ALL
  SELECT 'message without its entry', message.id
  FROM message LEFT JOIN entry ON entry.id = message.id WHERE entry.id IS NULL
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
SELECT json_group_array(json_array(what, many, json(ids))) FROM (
  SELECT what, count(*) AS many, json_group_array(id) FILTER (WHERE place <= 20) AS ids FROM numbered GROUP BY what
);
