-- What the one writer runs inside a commit, each a batch of rows given as arrays. A message moves from one narrow
-- table to another: what the DELETE gives back is exactly what the INSERTs, the counts and the journal take, so that
-- all of them see the same set of rows. Other nodes write at the same time: so what decides stands in the DELETE or
-- UPDATE itself, where the server looks again at a row that it had to wait for, and rows are taken in the order of their
-- keys, so that two nodes seldom wait for each other. The statement `fence` in the same transaction sees to it that no
-- ended node writes. Counts and figures are kept by slot, the number of the node.

-- name: put_flows
-- Flows that may be new.
INSERT INTO flow (number, lane, tenant, campaign, queue, priority, account)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::text[]) AS given
ORDER BY 1
ON CONFLICT DO NOTHING;

-- name: put_keys
-- Idempotency keys as (tenant, key, message, fingerprint), where no other node took them a moment ago; answers how many
-- were put.
WITH put AS (
  INSERT INTO idempotency (tenant, key, message, fingerprint)
  SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) AS given
  ORDER BY 1, 2
  ON CONFLICT DO NOTHING RETURNING key
)
SELECT count(*) FROM put;

-- name: count_new
-- New messages as (flow, state, how many), counted in slot $4. The messages themselves come by COPY; they are born in
-- their state.
INSERT INTO tally (flow, sender, state, slot, count)
SELECT flow, '', state, $4::integer, many FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS new (flow, state, many)
ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count;

-- name: hand_over
-- Makes hand-overs durable (fields of Mark; counted in slot $5) where the message is still pending in the flow that the mark names,
-- as long as revision $6 is the newest of wide limits (null: whatever it is), and answers (position, HandedOver). Number, sender and start are the open journal line: it is written as a row when
-- it ends, which spares writing it twice. OFFSET 0 (and + 0) keep flow and state out of the look-up: by them the
-- planner would go through all that is pending, since an index of just that is there. And the row is deleted by its place
-- (ctid), as in the statements below: after a VACUUM of an empty table whose dead rows somebody's long transaction keeps, the
-- planner takes it for one row and would go through all of them for each given one.
-- arrow: pending -hand-over-> processing
WITH fitting AS (
  SELECT DISTINCT ON (line.id) line.id, line.flow, line.spot, mark.account, mark.started, mark.place
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[]) WITH ORDINALITY
    AS mark (id, flow, account, started, place)
  CROSS JOIN LATERAL (SELECT id, flow, state, ctid AS spot FROM waiting WHERE waiting.id = mark.id OFFSET 0) AS line
  WHERE line.flow = mark.flow AND line.state = 2 AND ($6::bigint IS NULL OR (SELECT newest FROM wide_revision) = $6)
  ORDER BY line.id, mark.place
),
gone AS (
  DELETE FROM waiting USING fitting
  WHERE waiting.ctid = fitting.spot AND waiting.state + 0 = 2 AND waiting.flow + 0 = fitting.flow
  RETURNING waiting.*, fitting.account, fitting.started, fitting.place
),
marked AS (
  INSERT INTO under_way (id, flow, number, attempts, due_at, turn, expires_at, sender, started_at)
  SELECT id, flow, number + 1, attempts, due_at, turn, expires_at, account, started FROM gone
),
less AS (
  INSERT INTO tally (flow, sender, state, slot, count)
  SELECT flow, sender, 2, $5::integer, -count(*) FROM gone GROUP BY flow, sender
  ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count
)
SELECT gone.place, gone.id, gone.number + 1, gone.attempts, gone.account, message.tenant, message.queue,
       message.channel, message.recipient, message.kind, message."group", message.content, message.metadata,
       message.max_attempts, message.timeout_ms, message.backoff, message.trace_id, message.callback_url,
       message.created_at, gone.expires_at, gone.due_at, gone.turn, gone.flow
FROM gone JOIN message ON message.id = gone.id
ORDER BY gone.place;

-- name: settle
-- Ends hand-overs (fields of Settlement; counted in slot $16) that are still the message's open one and answers their
-- positions, each with whether there are wide limits, of which it may hold places.
-- Only states without a successor by clock or lane have a finish.
-- arrow: processing -accept-> completed
-- arrow: processing -retry-> retrying
-- arrow: processing -give-back-> pending
-- arrow: processing -refuse-> failed
-- arrow: processing -lose-> uncertain
-- arrow: processing -expire-> expired
WITH fitting AS (
  SELECT DISTINCT ON (line.id) given.*, line.spot
  FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[],
              $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[])
    WITH ORDINALITY
    AS given (id, number, event, state, due_at, turn, attempts, started, finished, outcome, code, text, reference,
              result, moved_to, place)
  CROSS JOIN LATERAL (SELECT id, number, ctid AS spot FROM under_way WHERE under_way.id = given.id OFFSET 0) AS line
  WHERE line.number = given.number
  ORDER BY line.id, given.place
),
gone AS (
  DELETE FROM under_way USING fitting WHERE under_way.ctid = fitting.spot AND under_way.number + 0 = fitting.number
  RETURNING fitting.*, under_way.flow, under_way.sender, under_way.expires_at, under_way.started_at AS handed_over
),
known AS (
  SELECT gone.*, message.tenant, message.queue, message.channel, message.recipient, message."group"
  FROM gone JOIN message ON message.id = gone.id
),
again AS (
  INSERT INTO waiting (id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at)
  SELECT id, flow, state, number, attempts, due_at, turn, expires_at, sender, started FROM gone WHERE state < 5
),
over AS (
  INSERT INTO ended (id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, finished_at)
  SELECT id, flow, state, number, attempts, due_at, turn, expires_at, sender, started, finished
  FROM gone WHERE state >= 5
),
written AS (
  INSERT INTO attempt (message, number, flow, account, recipient, "group", handed_over, started, finished, outcome,
                       code, text, reference)
  SELECT id, number, flow, sender, recipient, "group", handed_over, started, finished, outcome, code, text, reference
  FROM known
),
more AS (
  INSERT INTO tally (flow, sender, state, slot, count)
  SELECT flow, sender, state, $16::integer, count(*) FROM gone GROUP BY flow, sender, state
  ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count
),
-- By the day; all time is the sum of them. Only calls whose answer said something count.
summed AS (
  INSERT INTO daily (day, tenant, queue, channel, account, slot, completed, failed, retries, send_ms)
  SELECT finished / 86400000, tenant, queue, channel, sender, $16::integer, count(*) FILTER (WHERE event = 'accept'),
         count(*) FILTER (WHERE event = 'refuse'), count(*) FILTER (WHERE event = 'retry'), sum(finished - started)
  FROM known WHERE event IN ('accept', 'refuse', 'retry')
  GROUP BY finished / 86400000, tenant, queue, channel, sender
  ON CONFLICT (day, tenant, queue, channel, account, slot) DO UPDATE SET
    completed = daily.completed + excluded.completed, failed = daily.failed + excluded.failed,
    retries = daily.retries + excluded.retries, send_ms = daily.send_ms + excluded.send_ms
),
-- Rows that stay the same are not written again: they are wide.
changed AS (
  UPDATE message
  SET recipient = coalesce(gone.moved_to, message.recipient), result = coalesce(gone.result, message.result)
  FROM gone WHERE message.id = gone.id AND (gone.moved_to IS NOT NULL OR gone.result IS NOT NULL)
)
SELECT place, EXISTS (SELECT FROM wide) FROM gone;

-- name: note
-- Notes what was learnt of accounts (account, flood_until, recipient, group, stopped): a flood wait only ever grows,
-- a stop is replaced, and an empty stop clears it.
INSERT INTO account_note (account, flood_until, recipient, "group", stopped)
SELECT account, max(flood_until), recipient, "group",
       (array_agg(stopped ORDER BY place DESC) FILTER (WHERE stopped IS NOT NULL))[1]
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
  AS learnt (account, flood_until, recipient, "group", stopped, place)
GROUP BY account, recipient, "group"
ON CONFLICT (account, recipient, "group") DO UPDATE SET
  flood_until = greatest(account_note.flood_until, excluded.flood_until),
  stopped = coalesce(excluded.stopped, account_note.stopped);

-- name: promote
-- Up to $2 messages of the partitions $4 whose moment came by $1 stand in line again, the longest due first; counted in
-- slot $5. Scheduled ones wait for the wall clock, which is $3 ahead; in line all are ordered on the scale of $1. Answers
-- (flow, Entry) of each.
-- arrow: scheduled -due-> pending
-- arrow: retrying -due-> pending
WITH due AS (
  SELECT each.id, each.state, each.due, each.place, each.spot
  FROM unnest($4::bigint[]) AS owned (part)
  CROSS JOIN LATERAL (
    (SELECT id, state, due_at - $3::bigint AS due, turn - $3::bigint AS place, ctid AS spot FROM waiting
     WHERE (flow & 63) = owned.part AND state = 1 AND due_at <= $1::bigint + $3::bigint
     ORDER BY due_at, id LIMIT $2::bigint)
    UNION ALL
    (SELECT id, state, due_at, turn, ctid FROM waiting
     WHERE (flow & 63) = owned.part AND state = 4 AND due_at <= $1::bigint
     ORDER BY due_at, id LIMIT $2::bigint)
  ) AS each
  ORDER BY each.due, each.id LIMIT $2::bigint
),
moved AS (
  UPDATE waiting SET state = 2, due_at = due.due, turn = due.place FROM due
  WHERE waiting.ctid = due.spot AND waiting.state + 0 = due.state
  RETURNING waiting.*, due.state AS old_state
),
counts AS (
  INSERT INTO tally (flow, sender, state, slot, count)
  SELECT flow, sender, state, $5::integer, sum(many) FROM (
    SELECT flow, sender, old_state AS state, -1 AS many FROM moved UNION ALL SELECT flow, sender, 2, 1 FROM moved
  ) AS both_ends GROUP BY flow, sender, state
  ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count
)
SELECT moved.flow, moved.turn, moved.id, moved.expires_at, message.recipient, message."group"
FROM moved JOIN message ON message.id = moved.id
ORDER BY moved.due_at, moved.id;

-- name: next_due
-- When the next scheduled or retrying message of the partitions $2 is due, if the wall clock is $1 ahead.
SELECT min(first.moment) FROM unnest($2::bigint[]) AS owned (part)
CROSS JOIN LATERAL (
  (SELECT due_at - $1::bigint AS moment FROM waiting
   WHERE (flow & 63) = owned.part AND state = 1 ORDER BY due_at, id LIMIT 1)
  UNION ALL
  (SELECT due_at FROM waiting WHERE (flow & 63) = owned.part AND state = 4 ORDER BY due_at, id LIMIT 1)
) AS first;

-- name: expire
-- Up to $2 waiting messages of the partitions $4 whose time passed by the wall clock, which is $3 ahead of $1, end now,
-- the longest expired first, each with a journal line that has no account, so that it occupies no window; counted in
-- slot $5. Answers their ids.
-- arrow: scheduled -expire-> expired
-- arrow: pending -expire-> expired
-- arrow: retrying -expire-> expired
WITH late AS (
  SELECT each.id, each.spot FROM unnest($4::bigint[]) AS owned (part)
  CROSS JOIN LATERAL (
    SELECT id, expires_at, ctid AS spot FROM waiting
    WHERE (flow & 63) = owned.part AND expires_at IS NOT NULL AND expires_at <= $1::bigint + $3::bigint
    ORDER BY expires_at, id LIMIT $2::bigint
  ) AS each
  ORDER BY each.expires_at, each.id LIMIT $2::bigint
),
gone AS (
  DELETE FROM waiting USING late WHERE waiting.ctid = late.spot RETURNING waiting.*
),
over AS (
  INSERT INTO ended (id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, finished_at)
  SELECT id, flow, 8, number + 1, attempts, due_at, turn, expires_at, sender, started_at, $1::bigint FROM gone
),
written AS (
  INSERT INTO attempt (message, number, flow, account, recipient, "group", handed_over, finished, outcome)
  SELECT gone.id, gone.number + 1, gone.flow, '', message.recipient, message."group", $1::bigint, $1::bigint, 'expire'
  FROM gone JOIN message ON message.id = gone.id
),
counts AS (
  INSERT INTO tally (flow, sender, state, slot, count)
  SELECT flow, sender, state, $5::integer, sum(many) FROM (
    SELECT flow, sender, state, -1 AS many FROM gone UNION ALL SELECT flow, sender, 8, 1 FROM gone
  ) AS both_ends GROUP BY flow, sender, state
  ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count
)
SELECT id FROM gone ORDER BY expires_at, id;

-- name: next_expiry
-- When the next waiting message of the partitions $2 expires, if the wall clock is $1 ahead.
SELECT min(first.moment) FROM unnest($2::bigint[]) AS owned (part)
CROSS JOIN LATERAL (
  SELECT expires_at - $1::bigint AS moment FROM waiting
  WHERE (flow & 63) = owned.part AND expires_at IS NOT NULL ORDER BY expires_at, id LIMIT 1
) AS first;

-- name: revise
-- Applies people's changes (fields of Revision; counted in slot $16) at $15 where the message is still as its person saw it, and answers
-- their positions. An ending without a call is a step of the journal and finishes now; no state deletes,
-- but never a message that is in somebody's hands.
-- arrow: scheduled -reschedule-> scheduled
-- arrow: pending -reschedule-> scheduled
-- arrow: retrying -reschedule-> scheduled
-- arrow: scheduled -revive-> pending
-- arrow: retrying -revive-> pending
-- arrow: failed -revive-> pending
-- arrow: cancelled -revive-> pending
-- arrow: expired -revive-> pending
-- arrow: uncertain -revive-> pending
-- arrow: scheduled -cancel-> cancelled
-- arrow: pending -cancel-> cancelled
-- arrow: retrying -cancel-> cancelled
-- arrow: scheduled -expire-> expired
-- arrow: pending -expire-> expired
-- arrow: retrying -expire-> expired
-- arrow: uncertain -confirm-> completed
-- arrow: uncertain -deny-> failed
WITH fitting AS (
  SELECT DISTINCT ON (entry.id)
    entry.id, given.place, entry.number, entry.flow AS old_flow, entry.state AS old_state, entry.sender,
    entry.started_at, entry.finished_at, given.to_state AS state, given.event, given.due_at, given.turn,
    given.expires_at, given.priority, given.flow, given.account, given.pool, given.attempts, given.reason,
    (given.to_state IS NOT NULL AND given.event IN ('cancel', 'expire', 'confirm', 'deny')) AS ends
  FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[], $5::text[], $6::bigint[], $7::bigint[],
              $8::bigint[], $9::integer[], $10::bigint[], $11::text[], $12::text[], $13::bigint[], $14::text[])
    WITH ORDINALITY
    AS given (id, number, from_state, to_state, event, due_at, turn, expires_at, priority, flow, account, pool,
              attempts, reason, place)
  CROSS JOIN LATERAL (SELECT * FROM entry WHERE entry.id = given.id OFFSET 0) AS entry
  WHERE entry.number = given.number AND entry.state = given.from_state
    AND NOT (entry.state = 3 AND given.to_state IS NULL)
  ORDER BY entry.id, given.place
),
-- Out of the one table and into the other, which may be the same: a row is taken out before it is put in, because
-- putting in reads what taking out gave back.
from_waiting AS (
  DELETE FROM waiting USING (
    SELECT fitting, line.spot FROM fitting
    CROSS JOIN LATERAL (SELECT ctid AS spot FROM waiting WHERE waiting.id = fitting.id OFFSET 0) AS line
  ) AS found
  WHERE waiting.ctid = found.spot AND waiting.number + 0 = (found.fitting).number
    AND waiting.state + 0 = (found.fitting).old_state
  RETURNING (found.fitting).*
),
from_under_way AS (
  DELETE FROM under_way USING fitting
  WHERE under_way.id = fitting.id AND under_way.number = fitting.number AND fitting.old_state = 3
    AND fitting.state IS DISTINCT FROM 3
  RETURNING fitting.*
),
from_ended AS (
  DELETE FROM ended USING fitting
  WHERE ended.id = fitting.id AND ended.number = fitting.number AND ended.state + 0 = fitting.old_state
  RETURNING fitting.*
),
-- What stays under way is changed in place: its node, which may be another one, has to find its row when the call ends.
stays AS (
  UPDATE under_way
  SET flow = fitting.flow, attempts = fitting.attempts, due_at = fitting.due_at, turn = fitting.turn,
      expires_at = fitting.expires_at
  FROM fitting
  WHERE under_way.id = fitting.id AND under_way.number = fitting.number AND fitting.old_state = 3 AND fitting.state = 3
  RETURNING fitting.*
),
change AS (
  SELECT * FROM from_waiting UNION ALL SELECT * FROM from_under_way UNION ALL SELECT * FROM from_ended
  UNION ALL SELECT * FROM stays
),
to_waiting AS (
  INSERT INTO waiting (id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at)
  SELECT id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at
  FROM change WHERE state IN (1, 2, 4)
),
to_under_way AS (
  INSERT INTO under_way (id, flow, number, attempts, due_at, turn, expires_at, sender, started_at)
  SELECT id, flow, number, attempts, due_at, turn, expires_at, sender, started_at
  FROM change WHERE state = 3 AND old_state <> 3
),
to_ended AS (
  INSERT INTO ended (id, flow, state, number, attempts, due_at, turn, expires_at, sender, started_at, finished_at)
  SELECT id, flow, state, number + ends::integer, attempts, due_at, turn, expires_at, sender, started_at,
         CASE WHEN state = old_state THEN finished_at ELSE $15::bigint END
  FROM change WHERE state >= 5
),
changed AS (
  UPDATE message SET priority = change.priority, account = change.account, pool = change.pool
  FROM change
  WHERE message.id = change.id AND change.state IS NOT NULL
    AND (message.priority, message.account, message.pool) <> (change.priority, change.account, change.pool)
),
deleted AS (
  DELETE FROM message USING change WHERE message.id = change.id AND change.state IS NULL
  RETURNING message.tenant, message.idempotency_key
),
unkeyed AS (
  DELETE FROM idempotency USING deleted
  WHERE idempotency.tenant = deleted.tenant AND idempotency.key = deleted.idempotency_key
),
written AS (
  INSERT INTO attempt (message, number, flow, account, recipient, "group", handed_over, finished, outcome, text)
  SELECT change.id, change.number + 1, change.flow, '', message.recipient, message."group", $15::bigint, $15::bigint,
         change.event, nullif(change.reason, '')
  FROM change JOIN message ON message.id = change.id WHERE change.ends
),
counts AS (
  INSERT INTO tally (flow, sender, state, slot, count)
  SELECT flow, sender, state, $16::integer, sum(many) FROM (
    SELECT old_flow AS flow, sender, old_state AS state, -1 AS many FROM change WHERE old_state <> 3
    UNION ALL
    SELECT flow, sender, state, 1 FROM change WHERE state <> 3
  ) AS both_ends GROUP BY flow, sender, state HAVING sum(many) <> 0
  ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count
),
-- An uncertain message that a person settled counts for that day, without a send time.
summed AS (
  INSERT INTO daily (day, tenant, queue, channel, account, slot, completed, failed, retries, send_ms)
  SELECT $15::bigint / 86400000, message.tenant, message.queue, message.channel, change.sender, $16::integer,
         count(*) FILTER (WHERE change.event = 'confirm'), count(*) FILTER (WHERE change.event = 'deny'), 0, 0
  FROM change JOIN message ON message.id = change.id
  WHERE change.event IN ('confirm', 'deny')
  GROUP BY message.tenant, message.queue, message.channel, change.sender
  ON CONFLICT (day, tenant, queue, channel, account, slot) DO UPDATE SET
    completed = daily.completed + excluded.completed, failed = daily.failed + excluded.failed
)
SELECT place FROM change ORDER BY place;

-- name: clean
-- Deletes those of the messages (ids) that are ended, a revived one is left alone; counted in slot $2. Answers how many. An idempotency
-- key lives as long as its message, journal lines live on.
WITH gone AS (
  DELETE FROM ended WHERE id = ANY ($1::bigint[]) AND state IN (5, 6, 7, 8) RETURNING id, flow, sender, state
),
deleted AS (
  DELETE FROM message USING gone WHERE message.id = gone.id RETURNING message.tenant, message.idempotency_key
),
unkeyed AS (
  DELETE FROM idempotency USING deleted
  WHERE idempotency.tenant = deleted.tenant AND idempotency.key = deleted.idempotency_key
),
less AS (
  INSERT INTO tally (flow, sender, state, slot, count)
  SELECT flow, sender, state, $2::integer, -count(*) FROM gone GROUP BY flow, sender, state
  ON CONFLICT (flow, sender, state, slot) DO UPDATE SET count = tally.count + excluded.count
)
SELECT count(*) FROM gone;

-- name: clean_tallies
-- Counts that sum to nothing go; answers how many rows that were. They are not looked for at each commit: an index of
-- them would be written with every count. The rows are locked before they are summed: then whatever another node counts
-- meanwhile is in the sum or stands beside it.
WITH locked AS (
  SELECT flow, sender, state, slot, count FROM tally
  WHERE (flow, sender, state) IN (
    SELECT flow, sender, state FROM tally GROUP BY flow, sender, state HAVING sum(count) = 0)
  ORDER BY flow, sender, state, slot FOR UPDATE
),
nothing AS (
  SELECT flow, sender, state, array_agg(slot) AS slots FROM locked GROUP BY flow, sender, state HAVING sum(count) = 0
),
gone AS (
  DELETE FROM tally USING nothing
  WHERE tally.flow = nothing.flow AND tally.sender = nothing.sender AND tally.state = nothing.state
    AND tally.slot = ANY (nothing.slots)
  RETURNING tally.flow
)
SELECT count(*) FROM gone;

-- name: clean_journal
-- Deletes journal lines by (message, number) and answers how many. Before its last line goes, a message that
-- is still kept takes over how it ended. Notes of accounts that say nothing any more at $3 go as well.
WITH given AS (
  SELECT line.* FROM unnest($1::bigint[], $2::bigint[]) AS asked (message, number)
  JOIN attempt AS line ON line.message = asked.message AND line.number = asked.number
),
kept AS (
  UPDATE message SET outcome = given.outcome, code = given.code, text = given.text, reference = given.reference
  FROM given JOIN entry ON entry.id = given.message AND entry.number = given.number
  WHERE message.id = given.message
),
silent AS (
  DELETE FROM account_note WHERE coalesce(stopped, '') = '' AND coalesce(flood_until, 0) < $3::bigint
),
gone AS (
  DELETE FROM attempt USING given WHERE attempt.message = given.message AND attempt.number = given.number
  RETURNING attempt.message
)
SELECT count(*) FROM gone;

-- name: put
-- Inserts or replaces configuration rows (fields of Document) as revision $6; of one that stands twice the last holds.
INSERT INTO document (kind, tenant, name, body, updated_at, revision)
SELECT DISTINCT ON (kind, tenant, name) kind, tenant, name, body, updated_at, $6::bigint
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[]) WITH ORDINALITY
  AS given (kind, tenant, name, body, updated_at, place)
ORDER BY kind, tenant, name, place DESC
ON CONFLICT (kind, tenant, name) DO UPDATE SET
  body = excluded.body, updated_at = excluded.updated_at, revision = excluded.revision;

-- name: next_revision
-- The number of the change that this commit makes to documents. The row is held until the commit.
UPDATE revision SET newest = newest + 1 RETURNING newest;

-- name: shift_waits
-- All noted waits move by so many ms.
UPDATE account_note SET flood_until = flood_until + $1::bigint WHERE flood_until IS NOT NULL;

-- name: remove
-- Deletes a configuration row by (kind, tenant, name) as revision $4 and answers how many there were.
WITH gone AS (DELETE FROM document WHERE kind = $1 AND tenant = $2 AND name = $3 RETURNING kind),
told AS (
  INSERT INTO removal (kind, tenant, name, revision) VALUES ($1, $2, $3, $4)
  ON CONFLICT (kind, tenant, name) DO UPDATE SET revision = excluded.revision
)
SELECT count(*) FROM gone;

-- name: wake
-- Leaves word for the owners of other partitions (fields of Wake).
INSERT INTO wake (flow, turn, id, many, due_at, expires_at)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]);

-- name: woken
-- Takes the word that was left for the partitions $1, flow by flow, as Wake.
WITH gone AS (DELETE FROM wake WHERE (flow & 63) = ANY ($1::bigint[]) RETURNING wake.*),
first AS (SELECT DISTINCT ON (flow) flow, turn, id FROM gone ORDER BY flow, turn, id)
SELECT first.flow, first.turn, first.id, sum(gone.many)::bigint, min(gone.due_at), min(gone.expires_at)
FROM first JOIN gone ON gone.flow = first.flow GROUP BY first.flow, first.turn, first.id;
