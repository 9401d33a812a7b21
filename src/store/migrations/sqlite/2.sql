-- Who does what: every process has a number of its own, and claims what it has begun. Numbers only grow.
CREATE TABLE replicas (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    beat INTEGER NOT NULL
) STRICT;

ALTER TABLE remediations ADD COLUMN claimed_by INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN claimed_by INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_claims ON outbox (claimed_by, id);

-- Posts that belong to no remediation, owed until Slack has them.
CREATE TABLE notices (
    id TEXT PRIMARY KEY,
    owed_at INTEGER NOT NULL,
    channel TEXT NOT NULL,
    body TEXT NOT NULL,
    claimed_by INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Slack's "come back later", for all processes together.
CREATE TABLE limits (
    lane TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
