-- Moments are milliseconds since the Unix epoch.

-- Who does what: every process has a number of its own, and claims what it has begun. Numbers only grow.
CREATE TABLE replicas (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    beat BIGINT NOT NULL DEFAULT 0,
    -- Its last transaction that wrote. By it a process learns whether a commit whose answer was lost counts.
    committed BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- Each transaction that owes something takes one; what is owed later has the larger number.
CREATE SEQUENCE generations INCREMENT BY 65536;

-- Deliveries of Slack that were taken: messages, edits, clicks, commands. Slack delivers some twice.
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL
);
CREATE INDEX deliveries_age ON deliveries (at);

CREATE TABLE alerts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel TEXT NOT NULL,
    ts TEXT NOT NULL,
    position BIGINT NOT NULL,
    sender TEXT NOT NULL,
    identity TEXT NOT NULL,
    status TEXT NOT NULL,
    at BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    rule_key TEXT,
    resolved_at BIGINT,
    body TEXT NOT NULL,
    UNIQUE (channel, ts, position)
) WITH (toast_tuple_target = 8160);
-- An identity may be longer than what an index can hold.
CREATE INDEX alerts_firing ON alerts (sender, hashtextextended(identity, 0))
    WHERE status = 'firing' AND resolved_at IS NULL;
CREATE INDEX alerts_age ON alerts (received_at);
CREATE INDEX alerts_resolved ON alerts (sender, hashtextextended(identity, 0), at) WHERE status = 'resolved';

CREATE TABLE remediations (
    id TEXT PRIMARY KEY,
    rule_key TEXT NOT NULL,
    role TEXT NOT NULL,
    instance_id TEXT,
    alert BIGINT REFERENCES alerts (id),
    channel TEXT NOT NULL,
    ts TEXT NOT NULL,
    state TEXT NOT NULL,
    open BOOLEAN NOT NULL,
    unsent BOOLEAN NOT NULL,
    takes_instance BOOLEAN NOT NULL,
    takes_role BOOLEAN NOT NULL,
    due_at BIGINT,
    opened_at BIGINT NOT NULL,
    acted_at BIGINT,
    cools_from BIGINT,
    ended_at BIGINT,
    outcome TEXT,
    waits_for TEXT,
    claimed_by BIGINT NOT NULL,
    body TEXT NOT NULL
) WITH (toast_tuple_target = 8160);
-- Two alerts two seconds apart, or two replicas: one of them gets the rule on the instance.
CREATE UNIQUE INDEX remediations_claim ON remediations (rule_key, instance_id)
    WHERE open AND instance_id IS NOT NULL;
-- Also by which the open ones are found at all.
CREATE INDEX remediations_due ON remediations (claimed_by, due_at) WHERE open;
CREATE INDEX remediations_waiting ON remediations (waits_for, opened_at) WHERE open AND waits_for IS NOT NULL;
-- An alert may go when nothing refers to it any more, open or not.
CREATE INDEX remediations_of_alert ON remediations (alert);
CREATE INDEX remediations_thread ON remediations (channel, ts);
CREATE INDEX remediations_instance ON remediations (instance_id) WHERE takes_instance;
CREATE INDEX remediations_role ON remediations (role, instance_id, id) WHERE takes_role;
CREATE INDEX remediations_acted ON remediations (rule_key, instance_id, acted_at) WHERE acted_at IS NOT NULL;
CREATE INDEX remediations_history ON remediations (opened_at, id);
CREATE INDEX remediations_of_rule ON remediations (rule_key, opened_at);
CREATE INDEX remediations_over ON remediations (coalesce(ended_at, opened_at)) WHERE NOT open;

-- What is owed to the world; a row goes when it is done, and until then it may have happened.
CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    remediation TEXT NOT NULL,
    effect TEXT NOT NULL,
    generation BIGINT NOT NULL,
    claimed_by BIGINT NOT NULL,
    PRIMARY KEY (remediation, effect)
);
CREATE INDEX outbox_claims ON outbox (claimed_by, id);

-- Posts that belong to no remediation, owed until Slack has them.
CREATE TABLE notices (
    id TEXT PRIMARY KEY,
    owed_at BIGINT NOT NULL,
    channel TEXT NOT NULL,
    body TEXT NOT NULL,
    claimed_by BIGINT NOT NULL
);

-- Slack's "come back later", for all processes together.
CREATE TABLE limits (
    lane TEXT PRIMARY KEY,
    until BIGINT NOT NULL
);

CREATE TABLE pauses (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pattern TEXT NOT NULL,
    by TEXT NOT NULL,
    reason TEXT,
    since BIGINT NOT NULL,
    until BIGINT,
    ended_at BIGINT,
    ended_by TEXT
);
CREATE INDEX pauses_active ON pauses (since) WHERE ended_at IS NULL;

-- Append-only: when, what, who, why.
CREATE TABLE journal (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    remediation TEXT,
    what TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL
);
CREATE INDEX journal_of ON journal (remediation) WHERE remediation IS NOT NULL;
CREATE INDEX journal_alone ON journal (at) WHERE remediation IS NULL;

CREATE TABLE tallies (
    name TEXT PRIMARY KEY,
    count BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    sample TEXT NOT NULL
);

CREATE TABLE notes (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    -- A note with a time passes; one without stays.
    at BIGINT
);
CREATE INDEX notes_age ON notes (at) WHERE at IS NOT NULL;
