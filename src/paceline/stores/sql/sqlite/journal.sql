-- The journal of attempts: written when a hand-over ends, read to rebuild limits and to show a trace.

-- name: attempts
-- The journal lines of these messages as Attempt, message by message in the order asked, oldest first; a
-- hand-over under way is the last.
SELECT json_group_array(json_array(
  message, number, flow, account, handed_over, started, finished, outcome, code, text, reference)
  ORDER BY place, number)
FROM (
  SELECT asked.key AS place, line.message, line.number, line.flow, line.account, line.handed_over, line.started,
         line.finished, line.outcome, line.code, line.text, line.reference
  FROM jsonb_each(?1) AS asked CROSS JOIN attempt AS line ON line.message = asked.value
  UNION ALL
  SELECT asked.key, entry.id, entry.number, entry.flow, entry.sender, entry.started_at, NULL, NULL, NULL, NULL,
         NULL, NULL
  FROM jsonb_each(?1) AS asked CROSS JOIN entry ON entry.id = asked.value
  WHERE entry.state = 3
);

-- name: occupancy_of
-- The newest ?3 sends that finished after ?2 of each account asked for, as Occupancy. What was withheld before
-- its call began was no send.
SELECT json_group_array((
  SELECT jsonb_group_array(jsonb_array(
    newest.flow, newest.account, newest.recipient, newest."group", newest.finished,
    json(iif(newest.outcome IN ('Accepted', 'Unknown'), 'true', 'false')))
    ORDER BY newest.finished, newest.message)
  FROM (
    SELECT * FROM attempt INDEXED BY attempt_account
    WHERE account = asked.value AND account <> '' AND finished > ?2 AND outcome <> 'Withheld'
    ORDER BY finished DESC LIMIT ?3
  ) AS newest
) ORDER BY asked.key)
FROM jsonb_each(?1) AS asked;

-- name: occupants
-- Every account that the journal knows: one hop of the index each, not a walk over all lines.
WITH RECURSIVE known (account) AS (
  SELECT min(account) FROM attempt INDEXED BY attempt_account WHERE account <> ''
  UNION ALL
  SELECT (
    SELECT min(account) FROM attempt INDEXED BY attempt_account
    WHERE account > known.account AND account <> ''
  ) FROM known WHERE known.account IS NOT NULL
)
SELECT json_group_array(account) FROM known WHERE account IS NOT NULL;

-- name: old_lines
-- Up to ?2 journal lines, as (message, number), that finished before ?1 and whose message is gone or ended;
-- ?3 is the first message that cannot have such a line yet.
SELECT json_group_array(json_array(message, number)) FROM (
  SELECT line.message, line.number
  FROM attempt AS line LEFT JOIN entry ON entry.id = line.message
  WHERE line.message < ?3 AND line.finished < ?1 AND (entry.id IS NULL OR entry.state IN (5, 6, 7, 8))
  ORDER BY line.message, line.number LIMIT ?2
);

