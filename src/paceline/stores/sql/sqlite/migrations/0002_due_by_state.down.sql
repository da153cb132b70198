DROP INDEX entry_due;
CREATE INDEX entry_due ON entry (due_at) WHERE state IN (1, 4);
