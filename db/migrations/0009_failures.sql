-- Failures by kind, and whom an event is about.
PRAGMA user_version = 9;
ALTER TABLE candidates ADD COLUMN failure TEXT;
UPDATE candidates SET failure = CASE
    WHEN lower(reason || coalesce(log, '')) LIKE '%out of memory%' THEN 'out of memory'
    WHEN lower(reason) LIKE '%diverged%' THEN 'diverged'
    WHEN lower(reason) LIKE '%said nothing for%' THEN 'timeout'
    ELSE 'crashed' END
    WHERE state = 'failed';
ALTER TABLE events ADD COLUMN number INTEGER;
ALTER TABLE events ADD COLUMN failure TEXT;
