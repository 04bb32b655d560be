-- What has come, in pages: by time, and at one time by id. Every schedule of nine o'clock is due at nine o'clock.
CREATE INDEX recurring_due ON recurring (next_at, id) WHERE paused = 0 AND next_at IS NOT NULL;
DROP INDEX recurring_next;
