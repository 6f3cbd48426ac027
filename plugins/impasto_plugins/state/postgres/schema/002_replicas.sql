-- Workers with leases, their calls in flight, and the rate windows of keys.

-- A lease ends by the server's clock. Its row stays until others have taken over the worker's calls.
CREATE TABLE workers (id text PRIMARY KEY, expires float8 NOT NULL);

CREATE TABLE in_flight (id text PRIMARY KEY, identity bytea NOT NULL, worker text NOT NULL, state text NOT NULL);
CREATE INDEX in_flight_by_identity ON in_flight (identity);
CREATE INDEX in_flight_by_worker ON in_flight (worker);

CREATE TABLE rates (key text PRIMARY KEY, paused_until float8 NOT NULL, longest float8 NOT NULL);
CREATE TABLE permits (id bigint PRIMARY KEY, key text NOT NULL, worker text NOT NULL);
CREATE INDEX permits_by_key ON permits (key);
CREATE TABLE arrivals (key text NOT NULL, at float8 NOT NULL);
CREATE INDEX arrivals_by_key ON arrivals (key, at);

-- The server that the windows were last used on, and the moment from which it may have forgotten requests.
CREATE TABLE servers (started float8 NOT NULL, timeline text NOT NULL, since float8 NOT NULL);

CREATE FUNCTION server_started() RETURNS float8 LANGUAGE sql STABLE AS
$$ SELECT extract(epoch FROM pg_postmaster_start_time())::float8 $$;

-- A replica that is promoted begins a new timeline.
CREATE FUNCTION server_timeline() RETURNS text LANGUAGE sql STABLE AS
$$ SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) $$;

INSERT INTO servers VALUES (server_started(), server_timeline(), '-infinity');


-- Workers that ended long ago and left nothing to take over go at the same time.
CREATE FUNCTION register_worker(worker_id text, seconds float8) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    INSERT INTO workers VALUES (worker_id, seconds_now() + seconds)
        ON CONFLICT (id) DO UPDATE SET expires = excluded.expires;
    DELETE FROM workers WHERE ctid = ANY(ARRAY(
        SELECT w.ctid FROM workers w WHERE w.expires < seconds_now() - 3600 AND NOT has_calls(w.id)
        FOR UPDATE SKIP LOCKED
    ));
END $$;

CREATE FUNCTION has_calls(worker_id text) RETURNS boolean LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT EXISTS (SELECT FROM in_flight WHERE worker = worker_id)
        OR EXISTS (SELECT FROM calls WHERE worker = worker_id AND state = 'running')
$$;

CREATE FUNCTION renew_worker(worker_id text, seconds float8) RETURNS boolean
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    PERFORM FROM workers WHERE id = worker_id FOR UPDATE;
    UPDATE workers SET expires = seconds_now() + seconds WHERE id = worker_id;
    RETURN FOUND;
END $$;

CREATE FUNCTION end_worker(worker_id text) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    UPDATE workers SET expires = least(expires, seconds_now()) WHERE id = worker_id;
    IF NOT has_calls(worker_id) THEN
        DELETE FROM workers WHERE id = worker_id;
    END IF;
END $$;

-- Those that were renewed meanwhile stay. Permits stay too: their requests count as arrived at the next look.
CREATE FUNCTION remove_workers(worker_ids text[]) RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    alive text[];
BEGIN
    PERFORM make_durable(), lock_name('workers', '');
    PERFORM FROM workers WHERE id = ANY(worker_ids) FOR UPDATE;
    alive := ARRAY(SELECT w.id FROM workers w WHERE w.id = ANY(worker_ids) AND w.expires > seconds_now());
    DELETE FROM in_flight WHERE worker = ANY(worker_ids) AND worker <> ALL(alive);
    DELETE FROM workers WHERE id = ANY(worker_ids) AND id <> ALL(alive);
END $$;

-- The workers whose leases have ended, each with the fingerprints of its calls, and workers of calls that are gone: one
-- that did not know that it had ended began a call.
CREATE FUNCTION dead_workers() RETURNS TABLE (id text, identities bytea[])
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    RETURN QUERY SELECT d.worker, ARRAY(SELECT f.identity FROM in_flight f WHERE f.worker = d.worker ORDER BY f.id) FROM (
        SELECT w.id AS worker FROM workers w WHERE w.expires <= seconds_now()
        UNION SELECT f.worker FROM in_flight f WHERE NOT EXISTS (SELECT FROM workers w WHERE w.id = f.worker)
        UNION SELECT c.worker FROM calls c WHERE c.state = 'running' AND c.worker <> ''
            AND NOT EXISTS (SELECT FROM workers w WHERE w.id = c.worker)
    ) d;
END $$;

-- Add a call and reserve uses, if there are any.
CREATE FUNCTION begin_call(
    call_id text, call_identity bytea, call_worker text, call_state text,
    budget_key bytea, whats text[], periods text[], amounts bigint[], limits bigint[],
    OUT is_alive boolean, OUT now float8, OUT place integer, OUT remaining bigint, OUT ends float8, OUT parts bigint[]
) LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    is_alive := EXISTS (SELECT FROM workers w WHERE w.id = call_worker AND w.expires > seconds_now());
    IF NOT is_alive THEN RETURN; END IF;
    IF cardinality(whats) > 0 THEN
        SELECT r.now, r.place, r.remaining, r.ends, r.parts INTO now, place, remaining, ends, parts
            FROM reserve(budget_key, whats, periods, amounts, limits) r;
        IF place IS NOT NULL THEN RETURN; END IF;
    END IF;
    INSERT INTO in_flight VALUES (call_id, call_identity, call_worker, call_state) ON CONFLICT (id) DO NOTHING;
END $$;

CREATE FUNCTION mark_call(call_id text, new_state text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable();
    UPDATE in_flight SET state = new_state WHERE id = call_id;
END $$;


-- Return the moment from which this server may have forgotten requests: it has started again, or has become the first.
CREATE FUNCTION server_since(now float8) RETURNS float8 LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    moment float8;
BEGIN
    SELECT s.since INTO moment FROM servers s WHERE s.started = server_started() AND s.timeline = server_timeline();
    IF FOUND THEN RETURN moment; END IF;
    UPDATE servers s SET started = server_started(), timeline = server_timeline(),
        since = CASE WHEN s.timeline = server_timeline() THEN server_started() ELSE now END
        WHERE s.started <> server_started() OR s.timeline <> server_timeline();
    RETURN (SELECT s.since FROM servers s);
END $$;

-- The seconds until a place is free. One statement reads permits and arrivals: a request that arrives is not missed.
CREATE FUNCTION wait_for_place(send_key text, requests integer, seconds float8, slack float8, now float8)
RETURNS float8 LANGUAGE sql SET search_path FROM CURRENT AS $$
    WITH places AS (SELECT requests - count(*)::integer AS free FROM permits WHERE key = send_key)
    SELECT CASE WHEN free <= 0 THEN slack ELSE greatest((
        -- One more request fits once the free-th newest arrival is a window old.
        SELECT a.at FROM arrivals a WHERE a.key = send_key ORDER BY a.at DESC OFFSET free - 1 LIMIT 1
    ) + seconds - now, 0) END FROM places
$$;

-- Return 0 and hold a place if a request may go, otherwise the seconds to wait; null if the worker's lease has ended.
CREATE FUNCTION begin_send(
    send_key text, permit bigint, holder text, requests integer, seconds float8, slack float8
) RETURNS float8 LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    now float8;
    rate rates;
    wait float8;
BEGIN
    PERFORM make_durable(), lock_name('rate', send_key);
    now := seconds_now();
    IF NOT EXISTS (SELECT FROM workers w WHERE w.id = holder AND w.expires > now) THEN RETURN NULL; END IF;
    IF EXISTS (SELECT FROM permits p WHERE p.id = permit) THEN RETURN 0; END IF; -- the answer was lost
    SELECT * INTO rate FROM rates r WHERE r.key = send_key;
    IF rate.longest IS NULL OR rate.longest < seconds THEN
        INSERT INTO rates VALUES (send_key, 0, seconds) ON CONFLICT (key) DO UPDATE SET longest = excluded.longest;
    END IF;
    wait := greatest(rate.paused_until, server_since(now) + seconds + slack) - now;
    IF wait > 0 THEN RETURN wait; END IF;
    wait := wait_for_place(send_key, requests, seconds, slack, now);
    IF wait > 0 THEN
        WITH dead AS (
            SELECT p.id, least(w.expires, now) AS at FROM permits p LEFT JOIN workers w ON w.id = p.worker
            WHERE p.key = send_key AND coalesce(w.expires, now) <= now FOR UPDATE OF p SKIP LOCKED
        ), counted AS (DELETE FROM permits p USING dead d WHERE p.id = d.id RETURNING d.at)
        INSERT INTO arrivals SELECT send_key, c.at FROM counted c;
        IF NOT FOUND THEN RETURN wait; END IF;
        wait := wait_for_place(send_key, requests, seconds, slack, now);
        IF wait > 0 THEN RETURN wait; END IF;
    END IF;
    INSERT INTO permits VALUES (permit, send_key, holder);
    DELETE FROM arrivals a WHERE a.key = send_key AND a.at < now - greatest(rate.longest, seconds);
    RETURN 0;
END $$;

-- Note that requests have arrived, and delete calls that are over.
CREATE FUNCTION report(permit_ids bigint[], call_ids text[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    now float8;
BEGIN
    PERFORM make_durable();
    IF cardinality(permit_ids) > 0 THEN
        PERFORM FROM permits WHERE id = ANY(permit_ids) ORDER BY id FOR UPDATE;
        now := seconds_now();
        WITH counted AS (DELETE FROM permits p WHERE p.id = ANY(permit_ids) RETURNING p.key)
            INSERT INTO arrivals SELECT c.key, now FROM counted c;
    END IF;
    IF cardinality(call_ids) > 0 THEN
        PERFORM FROM in_flight WHERE id = ANY(call_ids) ORDER BY id FOR UPDATE;
        DELETE FROM in_flight WHERE id = ANY(call_ids);
    END IF;
END $$;

-- Behind the key's lock: a permit that is only being given is not missed.
CREATE FUNCTION release_permits(send_key text, permit_ids bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable(), lock_name('rate', send_key);
    PERFORM FROM permits WHERE id = ANY(permit_ids) ORDER BY id FOR UPDATE;
    DELETE FROM permits WHERE id = ANY(permit_ids);
END $$;

CREATE FUNCTION pause_rate(send_key text, seconds float8) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM make_durable(), lock_name('rate', send_key);
    INSERT INTO rates VALUES (send_key, seconds_now() + seconds, 0)
        ON CONFLICT (key) DO UPDATE SET paused_until = greatest(rates.paused_until, excluded.paused_until);
END $$;
