-- Steps that are taken while nodes work: what each node's program knows, and the oldest program that may work with the
-- schema. Programs are named by the newest schema that they know; nodes that say nothing are of the first.
-- oldest program: 1

ALTER TABLE node ADD COLUMN program integer NOT NULL DEFAULT 1;
ALTER TABLE paceline_schema ADD COLUMN oldest integer NOT NULL DEFAULT 1;
