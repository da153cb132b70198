ALTER TABLE paceline_schema DROP COLUMN oldest;
ALTER TABLE node DROP COLUMN program;
