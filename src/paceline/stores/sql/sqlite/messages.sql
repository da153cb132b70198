-- Reading messages. What is asked for comes in as one JSON array, the answer goes out as one JSON text: a row
-- that crosses into Python costs a hundred times what it costs inside. `jsonb_each` hands on each row without
-- printing and parsing it again.

-- name: known_keys
-- Which of these (position, tenant, key) were used before, and by which message.
SELECT json_group_array(json_array(asked.value ->> 0, known.message, known.fingerprint))
FROM jsonb_each(?1) AS asked
JOIN idempotency AS known ON known.tenant = asked.value ->> 1 AND known.key = asked.value ->> 2;

-- name: processing
-- Every message whose hand-over has no ending yet, as HandedOver.
SELECT json_group_array(json_array(
  entry.id, entry.number, entry.attempts, entry.sender, message.tenant, message.queue, message.channel,
  message.recipient, message.kind, message."group", message.content, message.metadata,
  message.max_attempts, message.timeout_ms, message.backoff, message.trace_id, message.callback_url,
  message.created_at, entry.expires_at, entry.due_at, entry.turn, entry.flow) ORDER BY entry.id)
FROM entry INDEXED BY entry_state
CROSS JOIN message ON message.id = entry.id
WHERE entry.state = 3 AND entry.state IN (3, 6, 7, 8, 9);

-- name: entries
-- Up to ?2 pending entries of each flow asked for (fields of FlowAfter), behind (turn, id), as FlowPart.
-- Two arms, because a search for (turn, id) > (?, ?) uses the index only for the turn.
SELECT json_group_array(json_array(asked.value ->> 0, (
  SELECT jsonb_group_array(jsonb_array(
    place.turn, place.id, place.expires_at, message.recipient, message."group") ORDER BY place.turn, place.id)
  FROM (
    SELECT turn, id, expires_at FROM entry INDEXED BY entry_pending
    WHERE state = 2 AND flow = asked.value ->> 0 AND turn = asked.value ->> 1 AND id > asked.value ->> 2
    UNION ALL
    SELECT turn, id, expires_at FROM entry INDEXED BY entry_pending
    WHERE state = 2 AND flow = asked.value ->> 0 AND turn > asked.value ->> 1
    ORDER BY turn, id LIMIT ?2
  ) AS place CROSS JOIN message ON message.id = place.id
), json('false')) ORDER BY asked.key)
FROM jsonb_each(?1) AS asked;

-- name: ahead
-- How many pending messages of flow ?1 stand before (?2, ?3).
SELECT
  (SELECT count(*) FROM entry INDEXED BY entry_pending WHERE state = 2 AND flow = ?1 AND turn < ?2)
  + (SELECT count(*) FROM entry INDEXED BY entry_pending WHERE state = 2 AND flow = ?1 AND turn = ?2 AND id < ?3);

-- name: get
-- Messages in full, as StoredMessage, in the order of the ids asked for. The ending comes from the last
-- journal line, or from the message when that line was cleaned.
SELECT json_group_array(json_array(
  entry.id, entry.flow, entry.state, entry.number, entry.attempts, entry.due_at, entry.turn,
  message.created_at, entry.started_at, entry.finished_at, entry.expires_at, message.tenant, message.queue,
  message.channel, message.account, entry.sender, message.pool, message.recipient, message.priority,
  message.max_attempts, message.timeout_ms, message.content, message.trace_id, message.backoff,
  message."group", message.source, message.kind, message.campaign, message.batch, message.metadata,
  message.callback_url, message.idempotency_key,
  iif(line.message IS NULL AND entry.state <> 3, message.outcome, line.outcome), iif(line.message IS NULL AND entry.state <> 3, message.code, line.code),
  iif(line.message IS NULL AND entry.state <> 3, message.text, line.text), iif(line.message IS NULL AND entry.state <> 3, message.reference, line.reference),
  message.result) ORDER BY asked.key)
FROM jsonb_each(?1) AS asked
CROSS JOIN entry ON entry.id = asked.value
CROSS JOIN message ON message.id = asked.value
LEFT JOIN attempt AS line ON line.message = entry.id AND line.number = entry.number;

-- name: greatest_id
-- The greatest id ever stored, also when that message is deleted.
SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'message';

-- name: put_content
-- The content of a message that was added in this transaction without it, since it is large.
UPDATE message SET content = ? WHERE id = ?;
