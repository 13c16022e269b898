-- The tables of revision 0014 on PostgreSQL, where every database begins; later migrations are for both engines.

CREATE TABLE accounts (
    id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    limit_kind TEXT COLLATE "C" NOT NULL,
    secret BYTEA NOT NULL,
    secret_prefix TEXT COLLATE "C" NOT NULL,
    previous_secret BYTEA,
    previous_secret_until BIGINT,
    created_at BIGINT NOT NULL,
    feed_floor BIGINT DEFAULT 0 NOT NULL,
    feed_erased BIGINT DEFAULT 0 NOT NULL,
    balance BIGINT DEFAULT 0 NOT NULL,
    held BIGINT DEFAULT 0 NOT NULL,
    budget BIGINT,
    month BIGINT DEFAULT 0 NOT NULL,
    month_spent BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE events (
    id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C",
    seq BIGINT NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    detail TEXT COLLATE "C",
    pos BIGINT,
    body BYTEA,
    left_pos BIGINT,
    PRIMARY KEY (id),
    CONSTRAINT ck_events_body CHECK (pos IS NULL OR body IS NOT NULL),
    CONSTRAINT ck_events_left CHECK (left_pos IS NULL OR body IS NULL)
);

CREATE INDEX ix_events_for_account_feed ON events (account_id, pos) WHERE pos IS NOT NULL;

CREATE UNIQUE INDEX ix_events_for_feed ON events (pos) WHERE pos IS NOT NULL;

CREATE UNIQUE INDEX ix_events_for_timeline ON events (job_id, seq);

CREATE TABLE idempotency (
    account_id TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    body_hash BYTEA NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    answer BYTEA NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, key)
);

CREATE INDEX ix_idempotency_for_cleaning ON idempotency (expires_at);

CREATE TABLE labels (
    account_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (account_id, name, value, job_id)
);

CREATE TABLE lanes (
    id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    next_due_at BIGINT,
    rests_until BIGINT,
    PRIMARY KEY (id)
);

CREATE INDEX ix_lanes_for_claim ON lanes (next_due_at) WHERE next_due_at IS NOT NULL;

CREATE INDEX ix_lanes_for_turns ON lanes (account_id, next_due_at) WHERE next_due_at IS NOT NULL;

CREATE TABLE meta (
    key TEXT COLLATE "C" NOT NULL,
    value BYTEA NOT NULL,
    PRIMARY KEY (key)
);

CREATE TABLE usage_counted (
    job_id TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    charged BIGINT NOT NULL,
    duration_ms BIGINT NOT NULL,
    PRIMARY KEY (job_id)
);

CREATE TABLE usage_daily (
    account_id TEXT COLLATE "C" NOT NULL,
    day BIGINT NOT NULL,
    tag TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    counts BYTEA NOT NULL,
    PRIMARY KEY (account_id, day, tag, provider, operation, model, key_id)
);

CREATE TABLE usage_progress (
    id BIGSERIAL NOT NULL,
    pos BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE usage_recounts (
    n BIGSERIAL NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (n)
);

CREATE TABLE deliveries (
    id TEXT COLLATE "C" NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C",
    type TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C",
    lane TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    attempt_count BIGINT NOT NULL,
    schedule_base BIGINT NOT NULL,
    reason TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    retried_at BIGINT,
    attempted_at BIGINT,
    give_up_at BIGINT,
    finished_at BIGINT,
    due_at BIGINT,
    lease_owner TEXT COLLATE "C",
    lease_until BIGINT,
    lease_epoch BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT ck_deliveries_status CHECK (status IN ('pending', 'delivered', 'dead', 'skipped')),
    CONSTRAINT ck_deliveries_wake_up CHECK ((status = 'pending') = (due_at IS NOT NULL)),
    FOREIGN KEY(event_id) REFERENCES events (id)
);

CREATE INDEX ix_deliveries_for_claim ON deliveries (lane, due_at) WHERE status = 'pending';

CREATE INDEX ix_deliveries_for_event ON deliveries (event_id);

CREATE INDEX ix_deliveries_for_job ON deliveries (job_id);

CREATE INDEX ix_deliveries_for_list ON deliveries (account_id, id);

CREATE INDEX ix_deliveries_for_list_by_status ON deliveries (account_id, status, id) WHERE status <> 'delivered';

CREATE INDEX ix_deliveries_for_rescue ON deliveries (lease_until) WHERE lease_until IS NOT NULL;

CREATE INDEX ix_deliveries_for_subscription ON deliveries (subscription_id, id) WHERE subscription_id IS NOT NULL;

CREATE TABLE fanouts (
    event_id TEXT COLLATE "C" NOT NULL,
    place BIGINT NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    subscription_ids TEXT COLLATE "C" NOT NULL,
    results_expire_at BIGINT,
    PRIMARY KEY (event_id, place),
    FOREIGN KEY(event_id) REFERENCES events (id) ON DELETE CASCADE
);

CREATE TABLE jobs (
    id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C",
    provider TEXT COLLATE "C" NOT NULL,
    operation TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    input TEXT COLLATE "C" NOT NULL,
    input_full TEXT COLLATE "C",
    job_metadata TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    callback_url TEXT COLLATE "C",
    callback_events TEXT COLLATE "C",
    retry_of TEXT COLLATE "C",
    submission_id TEXT COLLATE "C",
    submit_tries BIGINT NOT NULL,
    submit_failures BIGINT NOT NULL,
    refusals TEXT COLLATE "C",
    provider_task_id TEXT COLLATE "C",
    task_confirmed BOOLEAN NOT NULL,
    provider_status TEXT COLLATE "C",
    poll_url TEXT COLLATE "C",
    cancel_url TEXT COLLATE "C",
    resolved_by TEXT COLLATE "C",
    error_code TEXT COLLATE "C",
    error_message TEXT COLLATE "C",
    cost_estimated BIGINT,
    cost_charged BIGINT,
    cost_basis TEXT COLLATE "C" NOT NULL,
    cost_raw TEXT COLLATE "C",
    cost_held BIGINT,
    result_count BIGINT NOT NULL,
    moderation TEXT COLLATE "C",
    polls BIGINT NOT NULL,
    callbacks BIGINT NOT NULL,
    hint_at BIGINT,
    hint_tries BIGINT NOT NULL,
    waiting TEXT COLLATE "C",
    running_at BIGINT,
    missing_since BIGINT,
    poll_failures BIGINT NOT NULL,
    not_found_polls BIGINT NOT NULL,
    overdue BOOLEAN NOT NULL,
    overdue_at BIGINT,
    created_at BIGINT NOT NULL,
    submitted_at BIGINT,
    finished_at BIGINT,
    erased_at BIGINT,
    expires_at BIGINT NOT NULL,
    due_at BIGINT,
    lease_owner TEXT COLLATE "C",
    lease_until BIGINT,
    lease_epoch BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT ck_jobs_status CHECK (status IN ('queued', 'submitting', 'submit_unknown', 'running', 'completed', 'failed', 'cancelled', 'expired')),
    CONSTRAINT ck_jobs_wake_up CHECK (status NOT IN ('queued', 'submitting', 'submit_unknown', 'running') OR due_at IS NOT NULL),
    CONSTRAINT ck_jobs_finished CHECK ((status IN ('queued', 'submitting', 'submit_unknown', 'running')) = (finished_at IS NULL)),
    CONSTRAINT ck_jobs_completed_has_result CHECK (status <> 'completed' OR result_count > 0),
    CONSTRAINT ck_jobs_failed_has_code CHECK (status <> 'failed' OR error_code IS NOT NULL),
    CONSTRAINT ck_jobs_charge CHECK (cost_charged IS NULL OR cost_charged >= 0),
    FOREIGN KEY(account_id) REFERENCES accounts (id)
);

CREATE INDEX ix_jobs_for_abandoned ON jobs (provider, due_at, id) WHERE status = 'submitting';

CREATE INDEX ix_jobs_for_expiry ON jobs (expires_at, id) WHERE status IN ('queued', 'submitting', 'submit_unknown', 'running');

CREATE INDEX ix_jobs_for_list ON jobs (account_id, id);

CREATE INDEX ix_jobs_for_list_by_status ON jobs (account_id, status, id);

CREATE INDEX ix_jobs_for_overdue ON jobs (overdue_at, id) WHERE overdue_at IS NOT NULL;

CREATE INDEX ix_jobs_for_poll ON jobs (provider, due_at) WHERE due_at IS NOT NULL AND status NOT IN ('queued', 'submitting');

CREATE INDEX ix_jobs_for_poll_in_turn ON jobs (provider, account_id, due_at) WHERE due_at IS NOT NULL AND status NOT IN ('queued', 'submitting');

CREATE INDEX ix_jobs_for_submit ON jobs (provider, due_at) WHERE status = 'queued';

CREATE INDEX ix_jobs_for_submit_in_turn ON jobs (provider, account_id, due_at) WHERE status = 'queued';

CREATE INDEX ix_jobs_for_task ON jobs (provider_task_id) WHERE provider_task_id IS NOT NULL;

CREATE TABLE keys (
    id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    prefix TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL,
    scopes TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    expires_at BIGINT,
    revoked_at BIGINT,
    PRIMARY KEY (id),
    FOREIGN KEY(account_id) REFERENCES accounts (id),
    UNIQUE (hash)
);

CREATE INDEX ix_keys_for_list ON keys (account_id, id);

CREATE TABLE replays (
    id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    subscription_id TEXT COLLATE "C" NOT NULL,
    since BIGINT NOT NULL,
    until BIGINT NOT NULL,
    types TEXT COLLATE "C" NOT NULL,
    statuses TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
    next_pos BIGINT NOT NULL,
    last_pos BIGINT NOT NULL,
    looked_at BIGINT NOT NULL,
    queued BIGINT NOT NULL,
    total BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    due_at BIGINT,
    lease_owner TEXT COLLATE "C",
    lease_until BIGINT,
    lease_epoch BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT ck_replays_status CHECK (status IN ('running', 'done', 'cancelled')),
    CONSTRAINT ck_replays_wake_up CHECK ((status = 'running') = (due_at IS NOT NULL)),
    FOREIGN KEY(account_id) REFERENCES accounts (id)
);

CREATE INDEX ix_replays_for_claim ON replays (due_at) WHERE status = 'running';

CREATE INDEX ix_replays_for_list ON replays (account_id, id);

CREATE INDEX ix_replays_for_subscription ON replays (account_id, subscription_id, id);

CREATE TABLE subscriptions (
    id TEXT COLLATE "C" NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    url TEXT COLLATE "C" NOT NULL,
    description TEXT COLLATE "C" NOT NULL,
    events TEXT COLLATE "C" NOT NULL,
    providers TEXT COLLATE "C" NOT NULL,
    operations TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    headers BYTEA,
    rate_per_s FLOAT,
    max_in_flight BIGINT NOT NULL,
    schedule TEXT COLLATE "C",
    signatures TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    disabled_reason TEXT COLLATE "C",
    secret BYTEA NOT NULL,
    previous_secret BYTEA,
    previous_secret_until BIGINT,
    signing_key BYTEA,
    previous_signing_key BYTEA,
    stop_at_expiry BOOLEAN DEFAULT false NOT NULL,
    last_success_at BIGINT,
    last_failure_at BIGINT,
    failing_since BIGINT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(account_id) REFERENCES accounts (id)
);

CREATE INDEX ix_subscriptions_for_disabling ON subscriptions (failing_since) WHERE failing_since IS NOT NULL;

CREATE INDEX ix_subscriptions_for_list ON subscriptions (account_id, id);

CREATE TABLE transfers (
    id BIGSERIAL NOT NULL,
    account_id TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C",
    seq BIGINT,
    kind TEXT COLLATE "C" NOT NULL,
    debit TEXT COLLATE "C" NOT NULL,
    credit TEXT COLLATE "C" NOT NULL,
    amount BIGINT NOT NULL,
    at BIGINT NOT NULL,
    basis TEXT COLLATE "C",
    reason TEXT COLLATE "C",
    actor TEXT COLLATE "C",
    key TEXT COLLATE "C",
    PRIMARY KEY (id),
    CONSTRAINT ck_transfers_amount CHECK (amount > 0),
    CONSTRAINT ck_transfers_move CHECK (kind || ':' || debit || ':' || credit IN ('credit:funding:available', 'debit:available:funding', 'hold:available:held', 'release:held:available', 'charge:held:spent', 'excess:available:spent', 'late:available:spent')),
    CONSTRAINT ck_transfers_job CHECK ((kind IN ('credit', 'debit')) = (job_id IS NULL)),
    FOREIGN KEY(account_id) REFERENCES accounts (id)
);

CREATE INDEX ix_transfers_for_account ON transfers (account_id, id);

CREATE UNIQUE INDEX ix_transfers_for_job ON transfers (job_id, kind) WHERE job_id IS NOT NULL;

CREATE UNIQUE INDEX ix_transfers_for_key ON transfers (account_id, key) WHERE key IS NOT NULL;

CREATE TABLE attempts (
    id BIGSERIAL NOT NULL,
    delivery_id TEXT COLLATE "C" NOT NULL,
    at BIGINT NOT NULL,
    status_code BIGINT,
    error TEXT COLLATE "C",
    error_class TEXT COLLATE "C",
    duration_ms BIGINT NOT NULL,
    dns_ms BIGINT,
    connect_ms BIGINT,
    tls_ms BIGINT,
    first_byte_ms BIGINT,
    sent TEXT COLLATE "C",
    response_body TEXT COLLATE "C",
    PRIMARY KEY (id),
    FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
);

CREATE INDEX ix_attempts_for_delivery ON attempts (delivery_id, id);

CREATE TABLE inputs (
    job_id TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL,
    body BYTEA,
    storage_key TEXT COLLATE "C",
    storage_place TEXT COLLATE "C",
    sweep_at BIGINT,
    PRIMARY KEY (job_id),
    CONSTRAINT ck_inputs_place CHECK ((body IS NULL) <> (storage_key IS NULL)),
    FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX ix_inputs_for_sweep ON inputs (sweep_at) WHERE sweep_at IS NOT NULL;

CREATE TABLE results (
    job_id TEXT COLLATE "C" NOT NULL,
    idx BIGINT NOT NULL,
    source_url TEXT COLLATE "C" NOT NULL,
    content_type TEXT COLLATE "C",
    size_bytes BIGINT,
    sha256 TEXT COLLATE "C",
    stored BOOLEAN NOT NULL,
    expires_at BIGINT NOT NULL,
    width BIGINT,
    height BIGINT,
    storage_key TEXT COLLATE "C",
    storage_place TEXT COLLATE "C",
    error TEXT COLLATE "C",
    tries BIGINT DEFAULT 0 NOT NULL,
    dead_tries BIGINT DEFAULT 0 NOT NULL,
    refreshed BOOLEAN DEFAULT false NOT NULL,
    link_dies_at BIGINT,
    due_at BIGINT,
    lane TEXT COLLATE "C" DEFAULT '' NOT NULL,
    sweep_at BIGINT,
    lease_owner TEXT COLLATE "C",
    lease_until BIGINT,
    lease_epoch BIGINT DEFAULT 0 NOT NULL,
    PRIMARY KEY (job_id, idx),
    FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX ix_results_for_capture ON results (lane, link_dies_at, due_at) WHERE due_at IS NOT NULL;

CREATE INDEX ix_results_for_sweep ON results (sweep_at) WHERE sweep_at IS NOT NULL;

CREATE TABLE submissions (
    id TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    token_hash BYTEA NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    provider_task_id TEXT COLLATE "C",
    http_status BIGINT,
    created_at BIGINT NOT NULL,
    answered_at BIGINT,
    PRIMARY KEY (id),
    CONSTRAINT uq_submissions_token UNIQUE (token_hash),
    FOREIGN KEY(job_id) REFERENCES jobs (id)
);

CREATE INDEX ix_submissions_for_job ON submissions (job_id);

CREATE INDEX ix_submissions_for_task ON submissions (provider, provider_task_id) WHERE provider_task_id IS NOT NULL;

CREATE TABLE callbacks (
    id BIGSERIAL NOT NULL,
    submission_id TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    body BYTEA NOT NULL,
    body_hash BYTEA NOT NULL,
    content_type TEXT COLLATE "C",
    copies BIGINT NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT uq_callbacks_body UNIQUE (submission_id, body_hash),
    FOREIGN KEY(submission_id) REFERENCES submissions (id)
);

CREATE INDEX ix_events_for_numbering ON events (at) WHERE body IS NOT NULL AND pos IS NULL;

CREATE SEQUENCE feed_pos;

CREATE FUNCTION labels_of(tags text, pairs text) RETURNS TABLE (name text, value text) LANGUAGE sql IMMUTABLE AS $$
    SELECT 'tag', tag.value FROM jsonb_array_elements_text(CAST(tags AS jsonb)) AS tag (value)
    UNION ALL SELECT 'metadata.' || pair.key, substr(pair.value, 1, 64)
    FROM jsonb_each_text(CAST(pairs AS jsonb)) AS pair (key, value)
$$;

CREATE FUNCTION jobs_labelled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO labels (account_id, name, value, job_id)
    SELECT NEW.account_id, l.name, l.value, NEW.id FROM labels_of(NEW.tags, NEW.job_metadata) l ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE FUNCTION jobs_unlabelled() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM labels WHERE account_id = OLD.account_id AND job_id = OLD.id
        AND (name, value) IN (SELECT l.name, l.value FROM labels_of(OLD.tags, OLD.job_metadata) l);
    RETURN NULL;
END
$$;

CREATE FUNCTION events_usage_uncounted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_recounts (account_id, job_id) VALUES (NEW.account_id, NEW.job_id);
    RETURN NULL;
END
$$;

CREATE FUNCTION counted_to() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT pos FROM usage_progress $$;

CREATE TRIGGER jobs_labelled AFTER INSERT ON jobs FOR EACH ROW
    WHEN (NEW.tags <> '[]' OR NEW.job_metadata <> '{}') EXECUTE FUNCTION jobs_labelled();

CREATE TRIGGER jobs_unlabelled AFTER DELETE ON jobs FOR EACH ROW
    WHEN (OLD.tags <> '[]' OR OLD.job_metadata <> '{}') EXECUTE FUNCTION jobs_unlabelled();

CREATE TRIGGER events_usage_uncounted AFTER UPDATE OF body ON events FOR EACH ROW
    WHEN (NEW.body IS NULL AND OLD.body IS NOT NULL AND NEW.job_id IS NOT NULL
        AND (OLD.pos IS NULL OR OLD.pos > counted_to())) EXECUTE FUNCTION events_usage_uncounted();

INSERT INTO usage_progress (id, pos) VALUES (1, 0);

INSERT INTO meta (key, value) VALUES ('books_since', '0'), ('feed_plain_until', '0');

CREATE TABLE alembic_version (version_num varchar(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));

INSERT INTO alembic_version VALUES ('0014');
