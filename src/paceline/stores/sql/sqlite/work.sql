-- Every kind of write as one statement. A thread gives the interpreter's lock away at each step of a
-- statement and, beside a busy event loop, waits long to have it back; so a commit has to be one step, however
-- many statements it takes. A trigger on the view `work` is how SQLite runs several as one: the writer inserts
-- one row a kind, the triggers do it all, and the one INSERT commits on its own.
--
-- A batch is read from its JSON once into a scratch table, together with what the rows it fits know already.
-- Everything behind uses plain columns and sees exactly the same set of rows. `UPDATE ... FROM` costs three
-- times what `INSERT ... ON CONFLICT DO UPDATE` costs here, so the hot ones are written like that.

-- name: make_work
-- Where the writer puts a kind of write and its batch; nothing is ever stored in it.
CREATE TEMP VIEW work (kind, rows, flows, keys, counts, moved, results, now, most, ahead) AS
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;

-- name: make_answer
-- What the triggers answer, one JSON text for each kind of write that has something to say.
CREATE TEMP TABLE answer (place INTEGER PRIMARY KEY, text TEXT);

-- name: make_claim
-- Hand-overs that fit.
CREATE TEMP TABLE claim (
  id INTEGER PRIMARY KEY, position INTEGER, flow INTEGER, number INTEGER, attempts INTEGER, due_at INTEGER,
  turn INTEGER, expires_at INTEGER, sender TEXT, account TEXT, started INTEGER
);

-- name: make_ending
-- Settlements that fit.
CREATE TEMP TABLE ending (
  id INTEGER PRIMARY KEY, position INTEGER, flow INTEGER, number INTEGER, sender TEXT, handed_over INTEGER,
  event TEXT, state INTEGER, due_at INTEGER, turn INTEGER, attempts INTEGER, started INTEGER, finished INTEGER,
  outcome TEXT, code TEXT, text TEXT, reference TEXT, tenant TEXT, queue TEXT, channel TEXT, recipient TEXT,
  "group" TEXT
);

-- name: make_summary
-- Settlements that fit, grouped.
CREATE TEMP TABLE summary (
  flow INTEGER, sender TEXT, event TEXT, state INTEGER, day INTEGER, tenant TEXT, queue TEXT, channel TEXT,
  many INTEGER, send_ms INTEGER
);

-- name: make_change
-- Messages that a clock or a person moves without a call: `old_` is what they were, no state means deleted.
CREATE TEMP TABLE change (
  id INTEGER PRIMARY KEY, position INTEGER, number INTEGER, old_flow INTEGER, old_state INTEGER,
  sender TEXT, event TEXT, flow INTEGER, state INTEGER, due_at INTEGER, turn INTEGER, expires_at INTEGER,
  priority INTEGER, account TEXT, pool TEXT, attempts INTEGER, reason TEXT
);

-- name: make_start
-- The first row of a commit: no answers yet.
CREATE TEMP TRIGGER start INSTEAD OF INSERT ON work WHEN NEW.kind = 'start' BEGIN
  DELETE FROM answer;
END;

-- name: make_finish
-- The last row of a commit: counts that fell to nothing go. A partial index holds only those.
CREATE TEMP TRIGGER finish INSTEAD OF INSERT ON work WHEN NEW.kind = 'finish' BEGIN
  DELETE FROM tally WHERE count = 0;
END;

-- name: make_add
-- Stores new messages; the numbers are the fields of NewMessage. A new message takes no arrow: it is born in
-- its state. `keys` are (tenant, key, message, fingerprint), `counts` (flow, state, how many).
CREATE TEMP TRIGGER "add" INSTEAD OF INSERT ON work WHEN NEW.kind = 'add' BEGIN
  INSERT OR IGNORE INTO flow (number, lane, tenant, campaign, queue, priority, account)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
  FROM jsonb_each(NEW.flows);

  INSERT INTO idempotency (tenant, key, message, fingerprint)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM jsonb_each(NEW.keys);

  INSERT INTO message (
    id, created_at, tenant, queue, channel, account, pool, recipient, priority, max_attempts, timeout_ms,
    content, trace_id, backoff, "group", source, kind, campaign, batch, metadata, callback_url, idempotency_key
  )
  SELECT
    value ->> 0, value ->> 5, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12,
    value ->> 13, value ->> 14, value ->> 15, value ->> 16, value ->> 17, value ->> 18, value ->> 19,
    value ->> 20, value ->> 21, value ->> 22, value ->> 23, value ->> 24, value ->> 25, value ->> 26
  FROM jsonb_each(NEW.rows);

  INSERT INTO entry (id, flow, state, number, attempts, due_at, turn, expires_at, sender)
  SELECT value ->> 0, value ->> 1, value ->> 2, 0, 0, value ->> 3, value ->> 4, value ->> 6, ''
  FROM jsonb_each(NEW.rows);

  INSERT INTO tally (flow, sender, state, count)
  SELECT value ->> 0, '', value ->> 1, value ->> 2 FROM jsonb_each(NEW.counts) WHERE true
  ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;

-- name: make_hand_over
-- Makes hand-overs durable (fields of Mark) where the message is still pending in the flow that the mark names,
-- and answers (position, HandedOver). Number, sender and start on the entry are the open journal line: it is
-- written as a row when it ends, which spares writing it twice.
-- arrow: pending -hand-over-> processing
CREATE TEMP TRIGGER hand_over INSTEAD OF INSERT ON work WHEN NEW.kind = 'hand_over' BEGIN
  INSERT OR IGNORE INTO claim (
    id, position, flow, number, attempts, due_at, turn, expires_at, sender, account, started
  )
  SELECT
    entry.id, mark.key, entry.flow, entry.number + 1, entry.attempts, entry.due_at, entry.turn,
    entry.expires_at, entry.sender, mark.value ->> 2, mark.value ->> 3
  FROM jsonb_each(NEW.rows) AS mark CROSS JOIN entry ON entry.id = mark.value ->> 0
  WHERE entry.state = 2 AND entry.flow = mark.value ->> 1;

  INSERT INTO entry (id, flow, state, number, attempts, due_at, turn, sender, started_at)
  SELECT id, flow, 3, number, attempts, due_at, turn, account, started FROM claim WHERE true
  ON CONFLICT DO UPDATE SET
    state = excluded.state, number = excluded.number, sender = excluded.sender, started_at = excluded.started_at;

  INSERT INTO tally (flow, sender, state, count)
  SELECT flow, sender, 2, -count(*) FROM claim GROUP BY flow, sender HAVING true
  ON CONFLICT DO UPDATE SET count = count + excluded.count;

  INSERT INTO answer (text)
  SELECT json_group_array(json_array(claim.position, json_array(
    claim.id, claim.number, claim.attempts, claim.account, message.tenant, message.queue, message.channel,
    message.recipient, message.kind, message."group", message.content, message.metadata,
    message.max_attempts, message.timeout_ms, message.backoff, message.trace_id, message.callback_url,
    message.created_at, claim.expires_at, claim.due_at, claim.turn, claim.flow)))
  FROM claim CROSS JOIN message ON message.id = claim.id;

  DELETE FROM claim;
END;

-- name: make_settle
-- Ends hand-overs (fields of Settlement) that are still the message's open one and answers their positions.
-- Only states without a successor by clock or lane have a finish. Recipients that turned out to have moved come
-- as (id, new recipient, position), what a call gave back as (id, result, position).
-- arrow: processing -accept-> completed
-- arrow: processing -retry-> retrying
-- arrow: processing -give-back-> pending
-- arrow: processing -refuse-> failed
-- arrow: processing -lose-> uncertain
-- arrow: processing -expire-> expired
CREATE TEMP TRIGGER settle INSTEAD OF INSERT ON work WHEN NEW.kind = 'settle' BEGIN
  INSERT OR IGNORE INTO ending
  SELECT
    entry.id, given.key, entry.flow, entry.number, entry.sender, entry.started_at,
    given.value ->> 2, given.value ->> 3, given.value ->> 4, given.value ->> 5, given.value ->> 6,
    given.value ->> 7, given.value ->> 8, given.value ->> 9, given.value ->> 10, given.value ->> 11,
    given.value ->> 12, message.tenant, message.queue, message.channel, message.recipient, message."group"
  FROM jsonb_each(NEW.rows) AS given
  CROSS JOIN entry ON entry.id = given.value ->> 0
  CROSS JOIN message ON message.id = entry.id
  WHERE entry.state = 3 AND entry.number = given.value ->> 1;

  INSERT INTO entry (id, flow, state, number, attempts, due_at, turn, sender, started_at, finished_at)
  SELECT id, flow, state, number, attempts, due_at, turn, sender, started, iif(state >= 5, finished, NULL)
  FROM ending WHERE true
  ON CONFLICT DO UPDATE SET
    state = excluded.state, attempts = excluded.attempts, due_at = excluded.due_at, turn = excluded.turn,
    started_at = excluded.started_at, finished_at = excluded.finished_at;

  INSERT INTO attempt (
    message, number, flow, account, recipient, "group", handed_over, started, finished, outcome, code, text,
    reference
  )
  SELECT id, number, flow, sender, recipient, "group", handed_over, started, finished, outcome, code, text,
    reference
  FROM ending;

  INSERT INTO summary
  SELECT flow, sender, event, state, finished / 86400000, tenant, queue, channel, count(*), sum(finished - started)
  FROM ending GROUP BY flow, sender, event, state, finished / 86400000, tenant, queue, channel;

  INSERT INTO tally (flow, sender, state, count)
  SELECT flow, sender, state, sum(many) FROM summary GROUP BY flow, sender, state HAVING true
  ON CONFLICT DO UPDATE SET count = count + excluded.count;

  -- By the day; all time is the sum of them. Only calls whose answer said something count.
  INSERT INTO daily (day, tenant, queue, channel, account, completed, failed, retries, send_ms)
  SELECT day, tenant, queue, channel, sender,
         sum(iif(event = 'accept', many, 0)), sum(iif(event = 'refuse', many, 0)),
         sum(iif(event = 'retry', many, 0)), sum(send_ms)
  FROM summary
  WHERE event IN ('accept', 'refuse', 'retry')
  GROUP BY day, tenant, queue, channel, sender
  ON CONFLICT DO UPDATE SET
    completed = completed + excluded.completed, failed = failed + excluded.failed,
    retries = retries + excluded.retries, send_ms = send_ms + excluded.send_ms;

  UPDATE message SET recipient = given.value ->> 1
  FROM jsonb_each(NEW.moved) AS given CROSS JOIN ending ON ending.id = given.value ->> 0
  WHERE ending.position = given.value ->> 2 AND message.id = ending.id;

  UPDATE message SET result = given.value ->> 1
  FROM jsonb_each(NEW.results) AS given CROSS JOIN ending ON ending.id = given.value ->> 0
  WHERE ending.position = given.value ->> 2 AND message.id = ending.id;

  INSERT INTO answer (text) SELECT json_group_array(position) FROM ending;

  DELETE FROM ending;
  DELETE FROM summary;
END;

-- name: make_note
-- Notes what was learnt of accounts (fields of AccountNote): a flood wait only ever grows, a stop is
-- replaced, and an empty stop clears it.
CREATE TEMP TRIGGER note INSTEAD OF INSERT ON work WHEN NEW.kind = 'note' BEGIN
  INSERT INTO account_note (account, flood_until, recipient, "group", stopped)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4
  FROM jsonb_each(NEW.rows) WHERE true ORDER BY key
  ON CONFLICT DO UPDATE SET
    flood_until = max(coalesce(flood_until, excluded.flood_until), coalesce(excluded.flood_until, flood_until)),
    stopped = coalesce(excluded.stopped, stopped);
END;

-- name: make_promote
-- Up to `most` messages whose moment came by `now` stand in line again, the longest due first. Scheduled ones
-- wait for the wall clock, which is `ahead` of `now`; in line all are ordered on the scale of `now`. Answers
-- Promoted: (flow, Entry) of each, and the next moment.
-- arrow: scheduled -due-> pending
-- arrow: retrying -due-> pending
CREATE TEMP TRIGGER promote INSTEAD OF INSERT ON work WHEN NEW.kind = 'promote' BEGIN
  INSERT INTO change (id, position, number, old_flow, old_state, sender, flow, state, due_at, turn, expires_at)
  SELECT
    id, row_number() OVER (ORDER BY due, id), number, flow, state, sender, flow, 2, due, place, expires_at
  FROM (
    SELECT * FROM (
      SELECT *, due_at - NEW.ahead AS due, turn - NEW.ahead AS place FROM entry INDEXED BY entry_due
      WHERE state IN (1, 4) AND state = 1 AND due_at <= NEW.now + NEW.ahead ORDER BY due_at, id LIMIT NEW.most
    )
    UNION ALL
    SELECT * FROM (
      SELECT *, due_at AS due, turn AS place FROM entry INDEXED BY entry_due
      WHERE state IN (1, 4) AND state = 4 AND due_at <= NEW.now ORDER BY due_at, id LIMIT NEW.most
    )
    ORDER BY due, id LIMIT NEW.most
  );

  UPDATE entry SET state = 2 WHERE id IN (SELECT id FROM change);

  -- Hardly ever: as long as nobody set the clock, both scales are one.
  UPDATE entry SET due_at = change.due_at, turn = change.turn
  FROM change WHERE NEW.ahead <> 0 AND entry.id = change.id AND change.old_state = 1;

  INSERT INTO work (kind) VALUES ('count');

  INSERT INTO answer (text) SELECT json_array(
    (SELECT jsonb_group_array(jsonb_array(change.flow, jsonb_array(
       change.turn, change.id, change.expires_at, message.recipient, message."group")) ORDER BY change.position)
     FROM change CROSS JOIN message ON message.id = change.id),
    (SELECT min(moment) FROM (
       SELECT min(due_at) - NEW.ahead AS moment FROM entry INDEXED BY entry_due
       WHERE state IN (1, 4) AND state = 1
       UNION ALL
       SELECT min(due_at) FROM entry INDEXED BY entry_due WHERE state IN (1, 4) AND state = 4)));

  DELETE FROM change;
END;

-- name: make_expire
-- Up to `most` waiting messages whose time passed by the wall clock, which is `ahead` of `now`, end now, the
-- longest expired first, each with a journal line that has no account, so that it occupies no window. Answers
-- Expired.
-- arrow: scheduled -expire-> expired
-- arrow: pending -expire-> expired
-- arrow: retrying -expire-> expired
CREATE TEMP TRIGGER expire INSTEAD OF INSERT ON work WHEN NEW.kind = 'expire' BEGIN
  INSERT INTO change (id, position, number, old_flow, old_state, sender, event, flow, state, reason)
  SELECT id, row_number() OVER (ORDER BY expires_at, id), number, flow, state, sender, 'expire', flow, 8, ''
  FROM (
    SELECT * FROM entry INDEXED BY entry_expiry
    WHERE expires_at IS NOT NULL AND state IN (1, 2, 4) AND expires_at <= NEW.now + NEW.ahead
    ORDER BY expires_at, id LIMIT NEW.most
  );

  UPDATE entry SET state = 8, number = number + 1, finished_at = NEW.now WHERE id IN (SELECT id FROM change);

  INSERT INTO work (kind, now) VALUES ('journal', NEW.now);
  INSERT INTO work (kind) VALUES ('count');

  INSERT INTO answer (text) SELECT json_array(
    (SELECT jsonb_group_array(id ORDER BY position) FROM change),
    (SELECT min(expires_at) - NEW.ahead FROM entry INDEXED BY entry_expiry
     WHERE expires_at IS NOT NULL AND state IN (1, 2, 4)));

  DELETE FROM change;
END;

-- name: make_revise
-- Applies people's changes (fields of Revision) where the message is still as its person saw it, and answers
-- their positions. An ending without a call is a step of the journal and finishes `now`; no state deletes,
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
CREATE TEMP TRIGGER revise INSTEAD OF INSERT ON work WHEN NEW.kind = 'revise' BEGIN
  INSERT OR IGNORE INTO flow (number, lane, tenant, campaign, queue, priority, account)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
  FROM jsonb_each(NEW.flows);

  INSERT OR IGNORE INTO change (
    id, position, number, old_flow, old_state, sender, state, event, due_at, turn, expires_at, priority, flow,
    account, pool, attempts, reason
  )
  SELECT
    entry.id, given.key, entry.number, entry.flow, entry.state, entry.sender, given.value ->> 3,
    given.value ->> 4, given.value ->> 5, given.value ->> 6, given.value ->> 7, given.value ->> 8,
    given.value ->> 9, given.value ->> 10, given.value ->> 11, given.value ->> 12, given.value ->> 13
  FROM jsonb_each(NEW.rows) AS given CROSS JOIN entry ON entry.id = given.value ->> 0
  WHERE entry.number = given.value ->> 1 AND entry.state = given.value ->> 2
    AND NOT (entry.state = 3 AND given.value ->> 3 IS NULL);

  UPDATE entry
  SET state = change.state, flow = change.flow, due_at = change.due_at, turn = change.turn,
      expires_at = change.expires_at, attempts = change.attempts,
      number = entry.number + (change.event IN ('cancel', 'expire', 'confirm', 'deny')),
      finished_at = CASE
        WHEN change.state < 5 THEN NULL WHEN change.state = change.old_state THEN entry.finished_at
        ELSE NEW.now END
  FROM change WHERE entry.id = change.id AND change.state IS NOT NULL;

  -- Rows that stay the same are not written again: they are wide.
  UPDATE message SET priority = change.priority, account = change.account, pool = change.pool
  FROM change
  WHERE message.id = change.id AND change.state IS NOT NULL
    AND (message.priority, message.account, message.pool) <> (change.priority, change.account, change.pool);

  INSERT INTO work (kind, now) VALUES ('journal', NEW.now);
  INSERT INTO work (kind) VALUES ('count');

  -- An uncertain message that a person settled counts for that day, without a send time.
  INSERT INTO daily (day, tenant, queue, channel, account, completed, failed, retries, send_ms)
  SELECT NEW.now / 86400000, message.tenant, message.queue, message.channel, change.sender,
         sum(change.event = 'confirm'), sum(change.event = 'deny'), 0, 0
  FROM change CROSS JOIN message ON message.id = change.id
  WHERE change.event IN ('confirm', 'deny')
  GROUP BY message.tenant, message.queue, message.channel, change.sender
  ON CONFLICT DO UPDATE SET completed = completed + excluded.completed, failed = failed + excluded.failed;

  INSERT INTO work (kind) VALUES ('delete');

  INSERT INTO answer (text) SELECT json_group_array(position ORDER BY position) FROM change;

  DELETE FROM change;
END;

-- name: make_clean
-- Deletes those of the messages (ids) that are ended, a revived one is left alone; answers how many.
CREATE TEMP TRIGGER clean INSTEAD OF INSERT ON work WHEN NEW.kind = 'clean' BEGIN
  INSERT INTO change (id, old_flow, old_state, sender)
  SELECT entry.id, entry.flow, entry.state, entry.sender
  FROM jsonb_each(NEW.rows) AS given CROSS JOIN entry ON entry.id = given.value
  WHERE entry.state IN (5, 6, 7, 8);

  INSERT INTO work (kind) VALUES ('count');
  INSERT INTO work (kind) VALUES ('delete');

  INSERT INTO answer (text) SELECT json(count(*)) FROM change;

  DELETE FROM change;
END;

-- name: make_clean_journal
-- Deletes journal lines by (message, number) and answers how many. Before its last line goes, a message that
-- is still kept takes over how it ended. Notes of accounts that say nothing any more go as well.
CREATE TEMP TRIGGER clean_journal INSTEAD OF INSERT ON work WHEN NEW.kind = 'clean_journal' BEGIN
  UPDATE message
  SET outcome = line.outcome, code = line.code, text = line.text, reference = line.reference
  FROM jsonb_each(NEW.rows) AS given
  CROSS JOIN attempt AS line ON line.message = given.value ->> 0 AND line.number = given.value ->> 1
  CROSS JOIN entry ON entry.id = line.message AND entry.number = line.number
  WHERE message.id = line.message;

  INSERT INTO answer (text) SELECT json(count(*))
  FROM jsonb_each(NEW.rows) AS given
  CROSS JOIN attempt AS line ON line.message = given.value ->> 0 AND line.number = given.value ->> 1;

  DELETE FROM attempt WHERE (message, number) IN (SELECT value ->> 0, value ->> 1 FROM jsonb_each(NEW.rows));

  DELETE FROM account_note WHERE coalesce(stopped, '') = '' AND coalesce(flood_until, 0) < NEW.now;
END;

-- name: make_put
-- Inserts or replaces configuration rows (fields of Document). With `ahead`, noted waits move by so many ms.
CREATE TEMP TRIGGER put INSTEAD OF INSERT ON work WHEN NEW.kind = 'put' BEGIN
  INSERT INTO document (kind, tenant, name, body, updated_at)
  SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4
  FROM jsonb_each(NEW.rows) WHERE true ORDER BY key
  ON CONFLICT DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at;

  UPDATE account_note SET flood_until = flood_until + NEW.ahead
  WHERE NEW.ahead IS NOT NULL AND flood_until IS NOT NULL;
END;

-- name: make_remove
-- Deletes configuration rows by (kind, tenant, name) and answers how many there were.
CREATE TEMP TRIGGER remove INSTEAD OF INSERT ON work WHEN NEW.kind = 'remove' BEGIN
  INSERT INTO answer (text) SELECT json(count(*)) FROM document
  WHERE (kind, tenant, name) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(NEW.rows));

  DELETE FROM document
  WHERE (kind, tenant, name) IN (SELECT value ->> 0, value ->> 1, value ->> 2 FROM jsonb_each(NEW.rows));
END;

-- name: make_count
-- Part of others: moves the counts from where the changed messages were to where they are now. Messages under
-- way have no count: they are few, and counted from their index when somebody asks.
CREATE TEMP TRIGGER count INSTEAD OF INSERT ON work WHEN NEW.kind = 'count' BEGIN
  INSERT INTO tally (flow, sender, state, count)
  SELECT old_flow, sender, old_state, -count(*) FROM change WHERE old_state <> 3
  GROUP BY old_flow, sender, old_state
  UNION ALL
  SELECT flow, sender, state, count(*) FROM change WHERE state <> 3 GROUP BY flow, sender, state
  ON CONFLICT DO UPDATE SET count = count + excluded.count;
END;

-- name: make_journal
-- Part of others: an ending without a call is a journal line without an account, so that it occupies no window.
CREATE TEMP TRIGGER journal INSTEAD OF INSERT ON work WHEN NEW.kind = 'journal' BEGIN
  INSERT INTO attempt (message, number, flow, account, recipient, "group", handed_over, finished, outcome, text)
  SELECT change.id, change.number + 1, change.flow, '', message.recipient, message."group", NEW.now, NEW.now,
         change.event, nullif(change.reason, '')
  FROM change CROSS JOIN message ON message.id = change.id
  WHERE change.event IN ('cancel', 'expire', 'confirm', 'deny') AND change.state IS NOT NULL;
END;

-- name: make_delete
-- Part of others: deletes the changed messages that have no state; an idempotency key lives as long as its
-- message, journal lines live on.
CREATE TEMP TRIGGER "delete" INSTEAD OF INSERT ON work WHEN NEW.kind = 'delete' BEGIN
  DELETE FROM idempotency WHERE (tenant, key) IN (
    SELECT message.tenant, message.idempotency_key
    FROM change CROSS JOIN message ON message.id = change.id
    WHERE change.state IS NULL AND message.idempotency_key IS NOT NULL);
  DELETE FROM message WHERE id IN (SELECT id FROM change WHERE state IS NULL);
  DELETE FROM entry WHERE id IN (SELECT id FROM change WHERE state IS NULL);
END;
