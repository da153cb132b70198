-- What changes seldom: flows, notes of accounts, configuration.

-- name: flows
-- Every flow with pending messages and how many, as FlowState.
SELECT json_group_array(json_array(number, json_array(lane, tenant, campaign, queue, priority, account), pending)
  ORDER BY number)
FROM (SELECT flow, sum(count) AS pending FROM tally WHERE state = 2 GROUP BY flow HAVING sum(count) > 0)
JOIN flow ON flow.number = flow;

-- name: flow_keys
-- Every flow as (number, FlowKey).
SELECT json_group_array(json_array(number, json_array(lane, tenant, campaign, queue, priority, account))) FROM flow;

-- name: notes
-- All notes as AccountNote.
SELECT json_group_array(json_array(account, flood_until, recipient, "group", nullif(stopped, ''))
  ORDER BY account, recipient, "group")
FROM account_note;

-- name: documents
-- All configuration rows of kind ?1 as Document.
SELECT json_group_array(json_array(kind, tenant, name, body, updated_at) ORDER BY tenant, name)
FROM document WHERE kind = ?1;
