-- Counts, which the transactions that change states keep exact.

-- name: tallies
-- All counts as Tally.
SELECT json_group_array(json_array(flow, sender, state, count)) FROM tally;

-- name: daily
-- Settled work of the days asked for, as Daily.
SELECT json_group_array(json_array(
  day, tenant, queue, channel, account, completed, failed, retries, send_ms)
  ORDER BY day, tenant, queue, channel, account)
FROM daily WHERE day IN (SELECT value FROM json_each(?1));
