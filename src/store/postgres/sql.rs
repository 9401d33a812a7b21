//! Statements about transactions and replicas, and those that do several things at once.

/// Where replicas call each other; the payload is the number of the one called.
pub(super) const CHANNEL: &str = "heal_owed";
/// The payload that calls all; no replica has this number.
pub(super) const EVERYBODY: &str = "0";

pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
pub(super) const COMMIT: &str = "COMMIT";
pub(super) const ROLLBACK: &str = "ROLLBACK";
pub(super) const SAVE: &str = "SAVEPOINT job";
pub(super) const UNDO: &str = "ROLLBACK TO SAVEPOINT job";
pub(super) const RELEASE: &str = "RELEASE SAVEPOINT job";

/// The lock of all decisions, one per schema: 0x6865616c is `heal`, the other half is the schema's oid.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(1751474540, $1::oid::int8::bit(32)::int4)";
/// What touches only what its replica has claimed waits for decisions, and not for its like.
pub(super) const LOCK_SHARED: &str =
    "SELECT pg_advisory_xact_lock_shared(1751474540, $1::oid::int8::bit(32)::int4)";

/// No row: this replica was taken off the list. Read after the lock, so it stays true to the end.
pub(super) const FENCE: &str = "SELECT nextval('generations') FROM replicas WHERE number = $1";
pub(super) const MARK: &str = "UPDATE replicas SET committed = $2 WHERE number = $1";
pub(super) const MARKED: &str = "SELECT committed FROM replicas WHERE number = $1";
pub(super) const CALL: &str = "SELECT pg_notify('heal_owed', $1)";

pub(super) const HAS_SCHEMA: &str =
    "SELECT 1 FROM pg_class WHERE relname = 'heal_schema' AND relnamespace = $1";
pub(super) const MAY_CREATE: &str = "SELECT has_schema_privilege($1::oid, 'CREATE')";
pub(super) const SCHEMA: &str = "SELECT coalesce(max(version), 0) FROM heal_schema";
pub(super) const MIGRATED: &str = "INSERT INTO heal_schema (version) VALUES ($1)";

pub(super) const REGISTER: &str = "INSERT INTO replicas DEFAULT VALUES RETURNING number";
pub(super) const LEAVE: &str = "DELETE FROM replicas WHERE number = $1";
/// Held by the session of a replica that lives.
pub(super) const HOLD: &str = "SELECT pg_advisory_lock($1)";
/// A session that we lost may not know it yet, and hold our locks. Nobody else's process is meant: the
/// number may have been given anew.
pub(super) const END_PROCESS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = $1 AND application_name = current_setting('application_name') AND usename = current_user";

pub(super) const BEAT: &str = "UPDATE replicas SET beat = beat + 1 WHERE number = $1";
pub(super) const BEATS: &str = "SELECT number, beat, EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid = $1 AND objid = (number & 4294967295)::oid)
    FROM replicas ORDER BY number";
pub(super) const BURY: &str = "DELETE FROM replicas WHERE number = $1 AND beat = $2 RETURNING number";
pub(super) const CLAIM_OPEN: &str = "UPDATE remediations SET claimed_by = $1
    WHERE open AND claimed_by NOT IN (SELECT number FROM replicas) RETURNING id";
pub(super) const CLAIM_OWED: &str = "WITH
    owed AS (UPDATE outbox SET claimed_by = $1
        WHERE claimed_by NOT IN (SELECT number FROM replicas) RETURNING 1),
    told AS (UPDATE notices SET claimed_by = $1
        WHERE claimed_by NOT IN (SELECT number FROM replicas) RETURNING 1)
    SELECT (SELECT count(*) FROM owed) + (SELECT count(*) FROM told)";

/// A step: $1 the id, to $15 its columns, $16 whether its claim on the instance is new, $17 to $20 the
/// journal's line (no line where $18 is null), $21 and $22 what it owes with the generations.
pub(super) const STEP: &str = "WITH
    changed AS (UPDATE remediations SET instance_id = $2, ts = $3, state = $4, open = $5, unsent = $6,
        takes_instance = $7, takes_role = $8, due_at = $9, acted_at = $10, cools_from = $11, ended_at = $12,
        outcome = $13, body = $14, waits_for = $15
        WHERE id = $1 AND (NOT $16 OR NOT EXISTS (SELECT FROM remediations other
            WHERE other.rule_key = remediations.rule_key AND other.instance_id = $2 AND other.open
            AND other.id <> $1))
        RETURNING claimed_by),
    told AS (INSERT INTO journal (at, remediation, what, who, why)
        SELECT $17::int8, $1, $18::text, $19::text, $20::text FROM changed WHERE $18::text IS NOT NULL),
    owes AS (INSERT INTO outbox (remediation, effect, generation, claimed_by)
        SELECT $1, effect, generation, claimed_by FROM changed, unnest($21::text[], $22::int8[]) AS e (effect, generation)
        ON CONFLICT (remediation, effect)
        DO UPDATE SET generation = excluded.generation, claimed_by = excluded.claimed_by)
    SELECT claimed_by FROM changed";

/// A new one: $1 the id, to $21 its columns (the last is its claimer), $22 to $25 the journal's line, $26
/// and $27 what it owes.
pub(super) const NEW: &str = "WITH
    added AS (INSERT INTO remediations (id, rule_key, role, instance_id, alert, channel, ts, state, open,
        unsent, takes_instance, takes_role, due_at, opened_at, acted_at, cools_from, ended_at, outcome, body,
        waits_for, claimed_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
        ON CONFLICT DO NOTHING RETURNING claimed_by),
    told AS (INSERT INTO journal (at, remediation, what, who, why)
        SELECT $22::int8, $1, $23::text, $24::text, $25::text FROM added WHERE $23::text IS NOT NULL),
    owes AS (INSERT INTO outbox (remediation, effect, generation, claimed_by)
        SELECT $1, effect, generation, claimed_by FROM added, unnest($26::text[], $27::int8[]) AS e (effect, generation)
        ON CONFLICT (remediation, effect)
        DO UPDATE SET generation = excluded.generation, claimed_by = excluded.claimed_by)
    SELECT claimed_by FROM added";

/// One effect: the remediation's claimer performs it.
pub(super) const OWE: &str = "INSERT INTO outbox (remediation, effect, generation, claimed_by)
    VALUES ($1, $2, $3, coalesce((SELECT claimed_by FROM remediations WHERE id = $1), $4))
    ON CONFLICT (remediation, effect)
    DO UPDATE SET generation = excluded.generation, claimed_by = excluded.claimed_by
    RETURNING claimed_by";

/// An alert: $1 to $10 its columns, $11 the note that is asked for. No row: its place is taken.
pub(super) const KEEP_ALERT: &str = "WITH
    kept AS (INSERT INTO alerts (channel, ts, position, sender, identity, status, at, received_at, rule_key, body)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING id)
    SELECT id,
        (SELECT max(at) FROM alerts WHERE sender = $4 AND hashtextextended(identity, 0) = hashtextextended($5, 0)
            AND identity = $5 AND status = 'resolved' AND at >= $7),
        EXISTS (SELECT FROM notes WHERE name = $11)
    FROM kept";

/// How a rule ($1), an instance ($2) and a role ($4) stand for a remediation ($3); attempts after $5.
pub(super) const STANDING: &str = "SELECT
    (SELECT id FROM remediations WHERE rule_key = $1 AND instance_id = $2 AND open AND id <> $3 LIMIT 1),
    (SELECT ARRAY[id, rule_key] FROM remediations
        WHERE instance_id = $2 AND takes_instance AND id <> $3 LIMIT 1),
    (SELECT count(DISTINCT instance_id) FROM remediations WHERE role = $4 AND takes_role AND id <> $3),
    (SELECT max(cools_from) FROM remediations
        WHERE rule_key = $1 AND instance_id = $2 AND acted_at IS NOT NULL),
    ARRAY(SELECT acted_at FROM remediations WHERE rule_key = $1 AND instance_id = $2 AND acted_at > $5
        ORDER BY acted_at DESC LIMIT 1000)";

pub(super) const SUBJECT: &str = "SELECT r.body, r.alert, r.claimed_by, r.open, a.resolved_at
    FROM remediations r LEFT JOIN alerts a ON a.id = r.alert WHERE r.id = $1";

/// Who has claimed what was last opened in the thread of a message, if that replica lives.
pub(super) const CLAIMER: &str = "SELECT claimed_by FROM remediations
    JOIN replicas ON replicas.number = claimed_by
    WHERE channel = $1 AND ts = $2 ORDER BY opened_at DESC, id DESC LIMIT 1";
/// Effects that are done, by remediation, name and generation.
pub(super) const SETTLE: &str = "DELETE FROM outbox
    USING unnest($1::text[], $2::text[], $3::int8[]) AS done (remediation, effect, generation)
    WHERE outbox.remediation = done.remediation AND outbox.effect = done.effect
    AND outbox.generation = done.generation";

/// Notes, each name once.
pub(super) const NOTE: &str = "INSERT INTO notes (name, value, at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int8[])
    ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at";

/// A limit: $1 its lane, $2 the milliseconds until it is over, by the one clock that all replicas share.
pub(super) const KEEP_LIMIT: &str = "INSERT INTO limits (lane, until)
    VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::int8 + $2::int8)
    ON CONFLICT (lane) DO UPDATE SET until = greatest(limits.until, excluded.until)";
pub(super) const LIMITS: &str = "SELECT lane, until - (extract(epoch FROM clock_timestamp()) * 1000)::int8
    FROM limits ORDER BY lane";
pub(super) const FORGET_LIMITS: &str =
    "DELETE FROM limits WHERE until <= (extract(epoch FROM clock_timestamp()) * 1000)::int8";
