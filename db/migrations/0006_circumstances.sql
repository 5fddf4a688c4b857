-- What results depend on beside the campaign file, as it was when the campaign began.
PRAGMA user_version = 6;

CREATE TABLE circumstances (
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    key         TEXT NOT NULL,
    value       TEXT NOT NULL,
    stamp       TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (campaign_id, key)
) STRICT, WITHOUT ROWID;
