-- What the parts of a model that was timed as a whole add up to: its latency is that of the whole.
PRAGMA user_version = 8;

ALTER TABLE whole_timings ADD COLUMN sum_us REAL;
