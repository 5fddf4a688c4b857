-- Energy for one token, where the device counts it.
PRAGMA user_version = 4;

ALTER TABLE whole_timings ADD COLUMN millijoules REAL;
ALTER TABLE latencies ADD COLUMN millijoules REAL;
