-- How well each layer's memory reads back what it stored: a JSON list of {layer, snr: [[pairs, SNR], …]}.
PRAGMA user_version = 2;
ALTER TABLE candidates ADD COLUMN retrieval TEXT NOT NULL DEFAULT '[]';
