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

/// No row: this replica was taken off the list. Read after the lock, so it stays true to the end; with how
/// many are on the list, how often others touched what this one has claimed, and the schema, which a newer
/// heal may have changed. Every version of heal asks this, so no migration may take these columns away.
pub(super) const FENCE: &str = "SELECT nextval('generations'), (SELECT count(*) FROM replicas), touched,
    (SELECT coalesce(max(version), 0) FROM heal_schema) FROM replicas WHERE number = $1";
/// Others find out that what they know of what they have claimed is not true any more.
pub(super) const TOUCH: &str = "UPDATE replicas SET touched = touched + 1 WHERE number = ANY($1)";
pub(super) const TOUCH_OTHERS: &str = "UPDATE replicas SET touched = touched + 1 WHERE number <> $1";
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

/// What was written of many at once; a list a column. So many rows must come of it as $16 says: else it has
/// found another world than it was made for, and its transaction fails before it commits.
pub(super) const STEP: &str = "WITH changed AS (UPDATE remediations AS r SET instance_id = n.instance_id, ts = n.ts,
        state = n.state, open = n.open, unsent = n.unsent, takes_instance = n.takes_instance,
        takes_role = n.takes_role, due_at = n.due_at, acted_at = n.acted_at, cools_from = n.cools_from,
        ended_at = n.ended_at, outcome = n.outcome, waits_for = n.waits_for, body = n.body
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::bool[], $7::bool[], $8::bool[],
        $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::text[], $14::text[], $15::text[])
        AS n (id, instance_id, ts, state, open, unsent, takes_instance, takes_role, due_at, acted_at, cools_from,
        ended_at, outcome, waits_for, body)
    WHERE r.id = n.id RETURNING 1)
    SELECT 1 / (count(*) = $16::int8)::int FROM changed";
pub(super) const NEW: &str = "INSERT INTO remediations (id, instance_id, ts, state, open, unsent,
        takes_instance, takes_role, due_at, acted_at, cools_from, ended_at, outcome, waits_for, body,
        rule_key, role, alert, channel, opened_at, claimed_by)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::bool[], $7::bool[],
        $8::bool[], $9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::text[], $14::text[], $15::text[],
        $16::text[], $17::text[], $18::int8[], $19::text[], $20::int8[], $21::int8[])";
pub(super) const KEEP_ALERTS: &str =
    "INSERT INTO alerts (id, channel, ts, position, sender, identity, status,
        at, received_at, rule_key, body) OVERRIDING SYSTEM VALUE
    SELECT * FROM unnest($1::int8[], $2::text[], $3::text[], $4::int8[], $5::text[], $6::text[], $7::text[],
        $8::int8[], $9::int8[], $10::text[], $11::text[])";
pub(super) const TAKE: &str = "INSERT INTO deliveries (id, at) SELECT * FROM unnest($1::text[], $2::int8[])";
pub(super) const RECORD: &str = "INSERT INTO journal (at, remediation, what, who, why)
    SELECT * FROM unnest($1::int8[], $2::text[], $3::text[], $4::text[], $5::text[])";
/// Of each remediation each effect once.
pub(super) const OWE: &str = "INSERT INTO outbox (remediation, effect, generation, claimed_by)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[])
    ON CONFLICT (remediation, effect)
    DO UPDATE SET generation = excluded.generation, claimed_by = excluded.claimed_by";

/// What is read ahead, each for a list of names.
pub(super) const DELIVERIES: &str = "SELECT id FROM deliveries WHERE id = ANY($1)";
pub(super) const NOTES: &str = "SELECT name, value FROM notes WHERE name = ANY($1)";
pub(super) const REMEDIATIONS: &str = "SELECT r.body, r.alert, r.claimed_by, a.resolved_at
    FROM remediations r LEFT JOIN alerts a ON a.id = r.alert WHERE r.id = ANY($1)";
/// By channels and `ts` of messages.
pub(super) const THREADS: &str = "SELECT r.body, r.alert, r.claimed_by, a.resolved_at, r.channel, r.ts, r.id
    FROM unnest($1::text[], $2::text[]) AS m (channel, ts)
    JOIN remediations r ON r.channel = m.channel AND r.ts = m.ts LEFT JOIN alerts a ON a.id = r.alert
    ORDER BY r.opened_at, r.id";
/// By channels and `ts` of messages, senders and identities: the places that are taken in the message, and
/// the newest end.
pub(super) const COMING: &str = "SELECT
        ARRAY(SELECT position FROM alerts WHERE channel = c.channel AND ts = c.ts),
        (SELECT max(at) FROM alerts WHERE sender = c.sender
            AND hashtextextended(identity, 0) = hashtextextended(c.identity, 0)
            AND identity = c.identity AND status = 'resolved')
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
        AS c (channel, ts, sender, identity, place) ORDER BY place";
/// By rules and instances: see [`super::known::OfRule`], $3 is the number of attempts; and what takes the
/// instance.
pub(super) const STANDINGS: &str = "SELECT
        (SELECT id FROM remediations WHERE rule_key = s.rule AND instance_id = s.instance AND open LIMIT 1),
        (SELECT max(cools_from) FROM remediations
            WHERE rule_key = s.rule AND instance_id = s.instance AND acted_at IS NOT NULL),
        ARRAY(SELECT acted_at FROM remediations WHERE rule_key = s.rule AND instance_id = s.instance
            AND acted_at IS NOT NULL ORDER BY acted_at DESC LIMIT $3),
        ARRAY(SELECT id FROM remediations WHERE instance_id = s.instance AND takes_instance ORDER BY id),
        ARRAY(SELECT rule_key FROM remediations WHERE instance_id = s.instance AND takes_instance ORDER BY id)
    FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS s (rule, instance, place) ORDER BY place";
pub(super) const ROLES: &str = "SELECT role, id, instance_id FROM remediations WHERE role = ANY($1) AND takes_role AND instance_id IS NOT NULL";
pub(super) const WAITED: &str = "SELECT what FROM unnest($1::text[]) AS w (what)
    WHERE EXISTS (SELECT FROM remediations WHERE waits_for = what AND open)";
/// Those that nobody ended; which of them are over by their time is the caller's to see.
pub(super) const PAUSES: &str = "SELECT id, pattern, by, reason, since, until FROM pauses
    WHERE ended_at IS NULL ORDER BY since, id";
/// So many new numbers for alerts.
pub(super) const ALERT_NUMBERS: &str =
    "SELECT nextval(pg_get_serial_sequence('alerts', 'id')) FROM generate_series(1, $1::int8)";

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
