-- The tokens that count, and values on parts of the held-out text that are the same for all candidates.
PRAGMA user_version = 7;

ALTER TABLE campaigns ADD COLUMN target_tokens INTEGER;
ALTER TABLE training_values ADD COLUMN parts BLOB;
