-- Moments are milliseconds since the Unix epoch.

-- Deliveries of Slack that were taken: messages, edits, clicks, commands. Slack delivers some twice.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    id INTEGER PRIMARY KEY,
    channel TEXT NOT NULL,
    ts TEXT NOT NULL,
    position INTEGER NOT NULL,
    sender TEXT NOT NULL,
    identity TEXT NOT NULL,
    status TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    rule_key TEXT,
    resolved_at INTEGER,
    body TEXT NOT NULL,
    UNIQUE (channel, ts, position)
) STRICT;
CREATE INDEX alerts_firing ON alerts (sender, identity) WHERE status = 'firing' AND resolved_at IS NULL;

CREATE INDEX alerts_resolved ON alerts (sender, identity, at) WHERE status = 'resolved';

CREATE TABLE remediations (
    id TEXT PRIMARY KEY,
    rule_key TEXT NOT NULL,
    role TEXT NOT NULL,
    instance_id TEXT,
    alert INTEGER REFERENCES alerts (id),
    channel TEXT NOT NULL,
    ts TEXT NOT NULL,
    state TEXT NOT NULL,
    open INTEGER NOT NULL,
    unsent INTEGER NOT NULL,
    takes_instance INTEGER NOT NULL,
    takes_role INTEGER NOT NULL,
    due_at INTEGER,
    opened_at INTEGER NOT NULL,
    acted_at INTEGER,
    cools_from INTEGER,
    ended_at INTEGER,
    outcome TEXT,
    waits_for TEXT,
    body TEXT NOT NULL
) STRICT;
-- Two alerts two seconds apart, or two replicas: one of them gets the rule on the instance.
CREATE UNIQUE INDEX remediations_claim ON remediations (rule_key, instance_id)
    WHERE open = 1 AND instance_id IS NOT NULL;
CREATE INDEX remediations_due ON remediations (due_at) WHERE open = 1;
CREATE INDEX remediations_waiting ON remediations (waits_for, opened_at) WHERE open = 1 AND waits_for IS NOT NULL;
CREATE INDEX remediations_open ON remediations (opened_at) WHERE open = 1;
CREATE INDEX remediations_of_alert ON remediations (alert) WHERE open = 1;
CREATE INDEX remediations_thread ON remediations (channel, ts);
CREATE INDEX remediations_instance ON remediations (instance_id) WHERE takes_instance = 1;
-- With all that counting needs, so that no row has to be read for it.
CREATE INDEX remediations_role ON remediations (role, instance_id, id) WHERE takes_role = 1;
CREATE INDEX remediations_acted ON remediations (rule_key, instance_id, acted_at) WHERE acted_at IS NOT NULL;
CREATE INDEX remediations_history ON remediations (opened_at);
CREATE INDEX remediations_of_rule ON remediations (rule_key, opened_at);

-- What is owed to the world; a row goes when it is done, and until then it may have happened.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    remediation TEXT NOT NULL,
    effect TEXT NOT NULL,
    generation INTEGER NOT NULL,
    UNIQUE (remediation, effect)
) STRICT;

CREATE TABLE pauses (
    id INTEGER PRIMARY KEY,
    pattern TEXT NOT NULL,
    by TEXT NOT NULL,
    reason TEXT,
    since INTEGER NOT NULL,
    until INTEGER,
    ended_at INTEGER,
    ended_by TEXT
) STRICT;
CREATE INDEX pauses_active ON pauses (since) WHERE ended_at IS NULL;

-- Append-only: when, what, who, why.
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    remediation TEXT,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL
) STRICT;
CREATE INDEX journal_of ON journal (remediation) WHERE remediation IS NOT NULL;

CREATE TABLE tallies (
    name TEXT PRIMARY KEY,
    count INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    sample TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE notes (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
