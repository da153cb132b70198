-- Scheduled messages wait for the wall clock, retrying ones for time that passes. When the wall clock was set, one
-- kind may be due a month before the other: each is looked for on its own.
DROP INDEX entry_due;
CREATE INDEX entry_due ON entry (state, due_at) WHERE state IN (1, 4);
