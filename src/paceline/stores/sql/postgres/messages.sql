-- Reading messages and their journal. What is asked for comes in as arrays; each row that comes out is a record.

-- name: known_keys
-- Which of these (position, tenant, key) were used before, and by which message.
SELECT asked.place, known.message, known.fingerprint
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS asked (place, tenant, key)
JOIN idempotency AS known ON known.tenant = asked.tenant AND known.key = asked.key;

-- name: processing
-- Every message whose hand-over has no ending yet, as HandedOver.
SELECT line.id, line.number, line.attempts, line.sender, message.tenant, message.queue, message.channel,
       message.recipient, message.kind, message."group", message.content, message.metadata, message.max_attempts,
       message.timeout_ms, message.backoff, message.trace_id, message.callback_url, message.created_at,
       line.expires_at, line.due_at, line.turn, line.flow
FROM under_way AS line JOIN message ON message.id = line.id
ORDER BY line.id;

-- name: open_calls
-- The same for the partitions $1.
SELECT line.id, line.number, line.attempts, line.sender, message.tenant, message.queue, message.channel,
       message.recipient, message.kind, message."group", message.content, message.metadata, message.max_attempts,
       message.timeout_ms, message.backoff, message.trace_id, message.callback_url, message.created_at,
       line.expires_at, line.due_at, line.turn, line.flow
FROM under_way AS line JOIN message ON message.id = line.id
WHERE (line.flow & 63) = ANY ($1::bigint[])
ORDER BY line.id;

-- name: entries
-- Up to so many pending entries of each flow asked for (fields of FlowAfter), behind (turn, id), as (position, Entry),
-- and one more where there are more.
SELECT asked.place, place.turn, place.id, place.expires_at, message.recipient, message."group"
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
  AS asked (flow, turn, id, most, place)
CROSS JOIN LATERAL (
  SELECT line.turn, line.id, line.expires_at FROM waiting AS line
  WHERE line.state = 2 AND line.flow = asked.flow AND (line.turn, line.id) > (asked.turn, asked.id)
  ORDER BY line.turn, line.id LIMIT asked.most + 1
) AS place
JOIN message ON message.id = place.id
ORDER BY asked.place, place.turn, place.id;

-- name: ahead
-- How many pending messages of flow $1 stand before ($2, $3).
SELECT count(*) FROM waiting WHERE state = 2 AND flow = $1 AND (turn, id) < ($2, $3);

-- name: get
-- Messages in full, as StoredMessage, in the order of the ids asked for. The ending comes from the last
-- journal line, or from the message when that line was cleaned.
SELECT entry.id, entry.flow, entry.state, entry.number, entry.attempts, entry.due_at, entry.turn,
       message.created_at, entry.started_at, entry.finished_at, entry.expires_at, message.tenant, message.queue,
       message.channel, message.account, entry.sender, message.pool, message.recipient, message.priority,
       message.max_attempts, message.timeout_ms, message.content, message.trace_id, message.backoff,
       message."group", message.source, message.kind, message.campaign, message.batch, message.metadata,
       message.callback_url, message.idempotency_key,
       CASE WHEN line.message IS NULL AND entry.state <> 3 THEN message.outcome ELSE line.outcome END,
       CASE WHEN line.message IS NULL AND entry.state <> 3 THEN message.code ELSE line.code END,
       CASE WHEN line.message IS NULL AND entry.state <> 3 THEN message.text ELSE line.text END,
       CASE WHEN line.message IS NULL AND entry.state <> 3 THEN message.reference ELSE line.reference END,
       message.result
FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (id, place)
JOIN entry ON entry.id = asked.id
JOIN message ON message.id = asked.id
LEFT JOIN attempt AS line ON line.message = entry.id AND line.number = entry.number
ORDER BY asked.place;

-- name: attempts
-- The journal lines of these messages as Attempt, message by message in the order asked, oldest first; a
-- hand-over under way is the last.
SELECT message, number, flow, account, handed_over, started, finished, outcome, code, text, reference
FROM (
  SELECT asked.place, line.message, line.number, line.flow, line.account, line.handed_over, line.started,
         line.finished, line.outcome, line.code, line.text, line.reference
  FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (id, place) JOIN attempt AS line ON line.message = asked.id
  UNION ALL
  SELECT asked.place, line.id, line.number, line.flow, line.sender, line.started_at, NULL, NULL, NULL, NULL, NULL, NULL
  FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (id, place) JOIN under_way AS line ON line.id = asked.id
) AS lines
ORDER BY place, number;

-- name: occupancy_of
-- The newest sends that finished after $3 of each account asked for (name, how many), as Occupancy, account by
-- account, oldest first. What was withheld before its call began was no send.
SELECT newest.flow, newest.account, newest.recipient, newest."group", newest.finished,
       newest.outcome IN ('Accepted', 'Unknown')
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS asked (account, most, place)
CROSS JOIN LATERAL (
  SELECT line.flow, line.account, line.recipient, line."group", line.finished, line.outcome, line.message
  FROM attempt AS line
  WHERE line.account = asked.account AND line.account <> '' AND line.finished > $3 AND line.outcome <> 'Withheld'
  ORDER BY line.finished DESC LIMIT asked.most
) AS newest
ORDER BY asked.place, newest.finished, newest.message;

-- name: occupants
-- Every account that the journal knows: one hop of the index each, not a walk over all lines.
WITH RECURSIVE known (account) AS (
  (SELECT account FROM attempt WHERE account <> '' ORDER BY account LIMIT 1)
  UNION ALL
  SELECT (SELECT line.account FROM attempt AS line WHERE line.account > known.account AND line.account <> ''
          ORDER BY line.account LIMIT 1)
  FROM known WHERE known.account IS NOT NULL
)
SELECT account FROM known WHERE account IS NOT NULL;

-- name: old_lines
-- Up to $2 journal lines, as (message, number), that finished before $1 and whose message is gone or ended;
-- $3 is the first message that cannot have such a line yet.
SELECT line.message, line.number
FROM attempt AS line
WHERE line.message < $3 AND line.finished < $1
  AND NOT EXISTS (SELECT FROM waiting WHERE waiting.id = line.message)
  AND NOT EXISTS (SELECT FROM under_way WHERE under_way.id = line.message)
  AND NOT EXISTS (SELECT FROM ended WHERE ended.id = line.message AND ended.state = 9)
ORDER BY line.message, line.number LIMIT $2;
