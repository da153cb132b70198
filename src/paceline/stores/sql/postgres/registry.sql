-- What changes seldom: flows, notes of accounts, configuration; and the counts.

-- name: flows
-- Every flow with pending messages and how many, as FlowState.
SELECT flow.number, flow.lane, flow.tenant, flow.campaign, flow.queue, flow.priority, flow.account, line.pending
FROM (SELECT flow, sum(count)::bigint AS pending FROM tally WHERE state = 2 GROUP BY flow HAVING sum(count) > 0) AS line
JOIN flow ON flow.number = line.flow
ORDER BY flow.number;

-- name: flows_of
-- The same for the partitions $1.
SELECT flow.number, flow.lane, flow.tenant, flow.campaign, flow.queue, flow.priority, flow.account, line.pending
FROM (SELECT flow, sum(count)::bigint AS pending FROM tally
      WHERE state = 2 AND (flow & 63) = ANY ($1::bigint[]) GROUP BY flow HAVING sum(count) > 0) AS line
JOIN flow ON flow.number = line.flow
ORDER BY flow.number;

-- name: flow_keys
-- Every flow as (number, FlowKey).
SELECT number, lane, tenant, campaign, queue, priority, account FROM flow;

-- name: keys_of
-- Some flows as (number, FlowKey).
SELECT number, lane, tenant, campaign, queue, priority, account FROM flow WHERE number = ANY ($1::bigint[]);

-- name: notes
-- All notes as AccountNote.
SELECT account, flood_until, recipient, "group", nullif(stopped, '')
FROM account_note ORDER BY account, recipient, "group";

-- name: documents
-- All configuration rows of kind $1 as Document.
SELECT kind, tenant, name, body, updated_at FROM document WHERE kind = $1 ORDER BY tenant, name;

-- name: tallies
-- All counts as Tally.
SELECT flow, sender, state, count FROM counted ORDER BY flow, sender, state;

-- name: daily
-- Settled work of the days asked for, as Daily; day 0 is the sum of all days.
SELECT * FROM (
  SELECT day, tenant, queue, channel, account, sum(completed)::bigint, sum(failed)::bigint, sum(retries)::bigint,
         sum(send_ms)::bigint
  FROM daily WHERE day > 0 AND day = ANY ($1::bigint[]) GROUP BY day, tenant, queue, channel, account
  UNION ALL
  SELECT 0, tenant, queue, channel, account, sum(completed)::bigint, sum(failed)::bigint, sum(retries)::bigint,
         sum(send_ms)::bigint
  FROM daily WHERE 0 = ANY ($1::bigint[]) GROUP BY tenant, queue, channel, account
) AS both_kinds
ORDER BY day, tenant, queue, channel, account;

-- name: changes
-- What was done to documents since revision $1, as Document with its revision; a deleted one has no body.
SELECT kind, tenant, name, body, updated_at, revision FROM document WHERE revision > $1
UNION ALL
SELECT kind, tenant, name, NULL, 0, revision FROM removal
WHERE revision > $1
  AND NOT EXISTS (SELECT FROM document WHERE document.kind = removal.kind AND document.tenant = removal.tenant
                  AND document.name = removal.name)
ORDER BY revision, kind, tenant, name;
