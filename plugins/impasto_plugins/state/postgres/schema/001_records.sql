-- Calls, budgets, files and batches.
--
-- Each function is one operation, in the transaction of the statement that calls it. It takes at most one advisory lock,
-- before it reads the clock and any row, and it locks several rows only by skipping those that are locked: operations
-- can't wait for each other in a circle. SET search_path FROM CURRENT: the functions find the tables of their schema.

CREATE FUNCTION seconds_now() RETURNS float8 LANGUAGE sql VOLATILE AS
$$ SELECT extract(epoch FROM clock_timestamp())::float8 $$;

-- Let the commit of this transaction wait for the disk, also if the database does not by default.
CREATE FUNCTION make_durable() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END $$;

-- Wait until no other transaction has the lock of this name, and hold it until the end of this one.
CREATE FUNCTION lock_name(kind text, name text) RETURNS void LANGUAGE sql AS
$$ SELECT pg_advisory_xact_lock(hashtextextended(name, hashtextextended(current_schema() || '.' || kind, 0))) $$;


CREATE TABLE calls (
    id text PRIMARY KEY, owner bytea NOT NULL, identity bytea NOT NULL, content bytea NOT NULL, state text NOT NULL,
    model text NOT NULL, response_format text NOT NULL, worker text NOT NULL, attempt integer NOT NULL,
    jobs text NOT NULL, outcome text NOT NULL, created float8 NOT NULL, expires float8 NOT NULL,
    former_worker text NOT NULL DEFAULT '' -- the dead one that it was taken over from
);
CREATE INDEX calls_by_identity ON calls (identity);
CREATE INDEX calls_by_worker ON calls (worker) WHERE state = 'running';
CREATE INDEX calls_by_expiry ON calls (expires);

-- A call without a beginning begins now, and its end counts from there.
CREATE FUNCTION call_of(record jsonb) RETURNS calls LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    call calls := jsonb_populate_record(NULL::calls, record || '{"former_worker": ""}');
BEGIN
    IF call.created = 0 THEN
        call.created := seconds_now();
        call.expires := call.created + call.expires;
    END IF;
    RETURN call;
END $$;

CREATE FUNCTION insert_or_join(record jsonb, do_join boolean) RETURNS SETOF calls
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    call calls := call_of(record);
BEGIN
    PERFORM make_durable(), lock_name('call', encode(call.identity, 'hex'));
    IF do_join THEN
        RETURN QUERY SELECT * FROM calls c WHERE c.identity = call.identity AND c.expires > seconds_now()
            ORDER BY c.created, c.id LIMIT 1;
        IF FOUND THEN RETURN; END IF;
    END IF;
    INSERT INTO calls SELECT call.* ON CONFLICT (id) DO NOTHING;
    RETURN QUERY SELECT * FROM calls c WHERE c.id = call.id;
END $$;

CREATE FUNCTION insert_calls(records jsonb) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    INSERT INTO calls SELECT call.* FROM jsonb_array_elements(records) AS record, call_of(record) AS call
        ORDER BY call.id ON CONFLICT (id) DO NOTHING;
END $$;

CREATE FUNCTION update_call(call_id text, new_state text, new_outcome text, new_jobs text, new_identity bytea)
RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    UPDATE calls SET state = coalesce(new_state, state), outcome = coalesce(new_outcome, outcome),
        jobs = coalesce(new_jobs, jobs), identity = coalesce(new_identity, identity)
        WHERE id = call_id AND NOT (state = 'done' AND coalesce(new_state = 'failed', false));
END $$;

CREATE FUNCTION delete_call(call_id text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    DELETE FROM calls WHERE id = call_id;
END $$;

CREATE FUNCTION claim_call(call_identity bytea, count integer, as_job boolean) RETURNS SETOF calls
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    call calls;
BEGIN
    PERFORM make_durable(), lock_name('call', encode(call_identity, 'hex'));
    SELECT * INTO call FROM calls WHERE identity = call_identity AND attempt < count AND expires > seconds_now()
        AND CASE WHEN as_job THEN worker <> '' ELSE state = 'done' END ORDER BY attempt, created, id LIMIT 1;
    IF FOUND THEN
        UPDATE calls SET attempt = count WHERE id = call.id;
        RETURN NEXT call;
    END IF;
END $$;

CREATE FUNCTION release_call(call_id text, count integer, former integer) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    UPDATE calls SET attempt = former WHERE id = call_id AND attempt = count;
END $$;

-- A job's row names its former worker: if the answer is lost, the same call returns the same jobs again.
CREATE FUNCTION take_over(
    dead text[], new_worker text, failure text, failed_ids text[], failed_identities bytea[], seconds float8
) RETURNS SETOF calls LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    now float8;
BEGIN
    PERFORM make_durable(), lock_name('take_over', '');
    now := seconds_now();
    INSERT INTO calls
        SELECT id, '', identity, '', 'failed', '', '', '', 0, '', failure, now, now + seconds, ''
        FROM (SELECT *, row_number() OVER (PARTITION BY identity) AS number
            FROM unnest(failed_ids, failed_identities) AS pair (id, identity)) AS each
        WHERE number > (SELECT count(*) FROM calls c WHERE c.worker = ANY(dead) AND c.identity = each.identity
            AND c.state = 'running' AND c.jobs <> '' AND c.attempt = 1000000) -- CALLER_WAITS
        ON CONFLICT (id) DO NOTHING;
    UPDATE calls SET worker = new_worker, former_worker = worker, attempt = 0
        WHERE worker = ANY(dead) AND state = 'running' AND jobs <> '';
    UPDATE calls SET state = 'failed', outcome = failure WHERE worker = ANY(dead) AND state = 'running';
    RETURN QUERY SELECT * FROM calls WHERE worker = new_worker AND former_worker = ANY(dead) AND state = 'running'
        ORDER BY created, id;
END $$;

CREATE FUNCTION delete_expired_calls() RETURNS SETOF text LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    now float8 := seconds_now();
BEGIN
    RETURN QUERY DELETE FROM calls WHERE id IN
        (SELECT c.id FROM calls c WHERE c.expires <= now FOR UPDATE SKIP LOCKED) RETURNING id;
END $$;


CREATE TABLE budgets (
    key bytea, what text, period text, part bigint, amount bigint NOT NULL, PRIMARY KEY (key, what, period, part)
);
CREATE INDEX budgets_by_part ON budgets (period, part);

-- The number of the part of a period in which an amount counts now. A minute consists of seconds, and slides.
CREATE FUNCTION current_part(period text, now float8) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT CASE period
        WHEN 'minute' THEN floor(now)
        WHEN 'day' THEN floor(now / 86400)
        WHEN 'month' THEN extract(year FROM to_timestamp(now) AT TIME ZONE 'UTC') * 12
            + extract(month FROM to_timestamp(now) AT TIME ZONE 'UTC') - 1
        ELSE 0 END::bigint
$$;

-- The oldest part that counts now: with one second more than 60, a window of whole seconds is never too short.
CREATE FUNCTION first_part(period text, now float8) RETURNS bigint LANGUAGE sql STABLE AS
$$ SELECT current_part(period, now) - CASE period WHEN 'minute' THEN 60 ELSE 0 END $$;

-- The first of these uses that would pass its limit, by its place from 0.
CREATE FUNCTION check_uses(
    budget_key bytea, whats text[], periods text[], amounts bigint[], limits bigint[], now float8,
    OUT place integer, OUT remaining bigint, OUT ends float8
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    current bigint;
    excess bigint;
    row record;
BEGIN
    FOR i IN 1 .. cardinality(whats) LOOP
        CONTINUE WHEN limits[i] IS NULL;
        SELECT limits[i] - coalesce(sum(b.amount), 0) INTO remaining FROM budgets b
            WHERE b.key = budget_key AND b.what = whats[i] AND b.period = periods[i]
            AND b.part >= first_part(periods[i], now);
        CONTINUE WHEN amounts[i] <= remaining;
        place := i - 1;
        current := current_part(periods[i], now);
        ends := CASE periods[i]
            WHEN 'day' THEN (current + 1) * 86400
            WHEN 'month' THEN extract(epoch FROM make_timestamptz(
                ((current + 1) / 12)::integer, ((current + 1) % 12 + 1)::integer, 1, 0, 0, 0, 'UTC'))
            ELSE 'infinity' END;
        IF periods[i] = 'minute' THEN
            excess := amounts[i] - remaining;
            FOR row IN SELECT b.part, b.amount FROM budgets b WHERE b.key = budget_key AND b.what = whats[i]
                AND b.period = 'minute' AND b.part >= first_part('minute', now) ORDER BY b.part
            LOOP
                excess := excess - row.amount;
                IF excess <= 0 THEN
                    ends := least(row.part, current) + 61; -- a second of the future counts as this one
                    EXIT;
                END IF;
            END LOOP;
        END IF;
        remaining := greatest(remaining, 0);
        RETURN;
    END LOOP;
END $$;

CREATE FUNCTION reserve(
    budget_key bytea, whats text[], periods text[], amounts bigint[], limits bigint[],
    OUT now float8, OUT place integer, OUT remaining bigint, OUT ends float8, OUT parts bigint[]
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    amount bigint;
BEGIN
    PERFORM make_durable(), lock_name('budget', encode(budget_key, 'hex'));
    now := seconds_now(); -- behind the lock: no other transaction's is later by mistake
    FOR i IN 1 .. cardinality(whats) LOOP
        parts[i] := current_part(periods[i], now);
        -- Count amounts of the future as amounts of now: the clock was set back.
        WITH removed AS (
            DELETE FROM budgets b WHERE b.key = budget_key AND b.what = whats[i] AND b.period = periods[i]
                AND b.part > parts[i] RETURNING b.amount
        ) SELECT sum(r.amount) INTO amount FROM removed r;
        IF amount IS NOT NULL THEN
            PERFORM add_use(budget_key, whats[i], periods[i], parts[i], amount);
        END IF;
    END LOOP;
    SELECT c.place, c.remaining, c.ends INTO place, remaining, ends
        FROM check_uses(budget_key, whats, periods, amounts, limits, now) c;
    IF place IS NULL THEN
        FOR i IN 1 .. cardinality(whats) LOOP
            PERFORM add_use(budget_key, whats[i], periods[i], parts[i], amounts[i]);
        END LOOP;
    END IF;
END $$;

CREATE FUNCTION add_use(budget_key bytea, what text, period text, part bigint, amount bigint) RETURNS void
LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO budgets VALUES (budget_key, what, period, part, amount)
        ON CONFLICT ON CONSTRAINT budgets_pkey DO UPDATE SET amount = budgets.amount + excluded.amount
$$;

-- Add the difference to what was reserved: others have added to the same part meanwhile.
CREATE FUNCTION settle(budget_key bytea, whats text[], periods text[], parts bigint[], amounts bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable(), lock_name('budget', encode(budget_key, 'hex'));
    FOR i IN 1 .. cardinality(whats) LOOP
        PERFORM add_use(budget_key, whats[i], periods[i], parts[i], amounts[i]);
    END LOOP;
END $$;

CREATE FUNCTION amount_used(budget_key bytea, budget text, budget_period text) RETURNS bigint
LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT coalesce(sum(amount), 0)::bigint FROM budgets WHERE key = budget_key AND what = budget
        AND period = budget_period AND part >= first_part(budget_period, seconds_now())
$$;

CREATE FUNCTION delete_old_budgets() RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    now float8 := seconds_now();
BEGIN
    DELETE FROM budgets WHERE ctid = ANY(ARRAY(
        SELECT b.ctid FROM budgets b, unnest(ARRAY['minute', 'day', 'month']) AS each
        WHERE b.period = each AND b.part < first_part(each, now) FOR UPDATE OF b SKIP LOCKED
    ));
END $$;


CREATE TABLE objects (
    kind text NOT NULL, id text PRIMARY KEY, owner bytea NOT NULL, status text NOT NULL, label text NOT NULL,
    identity bytea NOT NULL, size bigint NOT NULL, body text NOT NULL, created float8 NOT NULL, expires float8 NOT NULL
);
CREATE INDEX objects_by_owner ON objects (kind, owner, created, id);
CREATE INDEX objects_by_status ON objects (kind, status, created, id);

-- A refusal has the numbers that are left; otherwise the row is there.
CREATE FUNCTION insert_object(
    record jsonb, max_count bigint, max_bytes bigint, since float8, OUT object jsonb, OUT count bigint, OUT bytes bigint
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    item objects := jsonb_populate_record(NULL::objects, record);
    room bigint;
BEGIN
    PERFORM make_durable(), lock_name('objects', '');
    SELECT to_jsonb(o) INTO object FROM objects o WHERE o.kind = item.kind AND o.owner = item.owner
        AND (o.id = item.id OR (o.identity = item.identity AND o.created > since)) ORDER BY o.id <> item.id LIMIT 1;
    IF FOUND THEN RETURN; END IF;
    SELECT max_count - count(*) INTO count FROM objects o WHERE o.kind = item.kind AND o.owner = item.owner;
    room := max_bytes - (SELECT coalesce(sum(size), 0) FROM objects);
    IF count <= 0 OR item.size > room THEN
        count := greatest(count, 0);
        bytes := greatest(room, 0);
        RETURN;
    END IF;
    INSERT INTO objects SELECT item.*;
    object := record;
END $$;

CREATE FUNCTION replace_object(
    old_record jsonb, new_record jsonb, further jsonb, max_bytes bigint, OUT is_replaced boolean, OUT bytes bigint
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    old objects := jsonb_populate_record(NULL::objects, old_record);
    item objects := jsonb_populate_record(NULL::objects, new_record);
    current objects;
    growth bigint;
BEGIN
    PERFORM make_durable(), lock_name('objects', '');
    SELECT * INTO current FROM objects WHERE id = old.id;
    IF current IS DISTINCT FROM old THEN
        is_replaced := false;
        RETURN;
    END IF;
    IF max_bytes IS NOT NULL THEN
        growth := item.size - old.size + (SELECT coalesce(sum((each->>'size')::bigint), 0)
            FROM jsonb_array_elements(further) each);
        bytes := max_bytes - (SELECT coalesce(sum(size), 0) FROM objects);
        IF growth > bytes THEN RETURN; END IF;
    END IF;
    DELETE FROM objects WHERE id = old.id;
    INSERT INTO objects SELECT item.*;
    INSERT INTO objects SELECT (jsonb_populate_record(NULL::objects, each)).* FROM jsonb_array_elements(further) each
        ON CONFLICT (id) DO NOTHING;
    is_replaced := true;
END $$;

CREATE FUNCTION delete_objects(ids text[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable(), lock_name('objects', '');
    DELETE FROM objects WHERE id = ANY(ids);
END $$;

CREATE FUNCTION delete_expired_objects(object_kind text, spare text[]) RETURNS SETOF objects
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable(), lock_name('objects', '');
    RETURN QUERY DELETE FROM objects WHERE kind = object_kind AND expires <= seconds_now() AND status <> ALL(spare)
        RETURNING *;
END $$;
