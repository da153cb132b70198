-- Counts, which the transactions that change states keep exact.

-- name: tallies
-- All counts as Tally.
SELECT json_group_array(json_array(flow, sender, state, count)) FROM counted;

-- name: daily
-- Settled work of the days asked for, as Daily; day 0 is the sum of all days.
SELECT json_group_array(json_array(
  day, tenant, queue, channel, account, completed, failed, retries, send_ms)
  ORDER BY day, tenant, queue, channel, account)
FROM (
  SELECT * FROM daily WHERE day > 0 AND day IN (SELECT value FROM json_each(?1))
  UNION ALL
  SELECT 0, tenant, queue, channel, account, sum(completed), sum(failed), sum(retries), sum(send_ms)
  FROM daily WHERE 0 IN (SELECT value FROM json_each(?1)) GROUP BY tenant, queue, channel, account
);
