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

-- Retention: what is old is found by its age, and goes in small batches.
-- Lines of a remediation go with it; these go by themselves.
CREATE INDEX journal_alone ON journal (at) WHERE remediation IS NULL;
CREATE INDEX remediations_over ON remediations (coalesce(ended_at, opened_at)) WHERE open = 0;
CREATE INDEX alerts_age ON alerts (received_at);
CREATE INDEX deliveries_age ON deliveries (at);
-- An alert may go when nothing refers to it any more, open or not.
DROP INDEX remediations_of_alert;
CREATE INDEX remediations_of_alert ON remediations (alert);
-- A note with a time passes; one without stays.
ALTER TABLE notes ADD COLUMN at INTEGER;
UPDATE notes SET at = (SELECT coalesce(max(at), 0) FROM journal)
    WHERE name LIKE 'reaction:%' OR name LIKE 'overtaken:%' OR name LIKE 'again:%';
CREATE INDEX notes_age ON notes (at) WHERE at IS NOT NULL;
