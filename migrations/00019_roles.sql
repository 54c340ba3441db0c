-- Roles: granting the privileges in the table privilege to roles other than the owner of the schema, and revoking them.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION grant_privileges(role name, kind text, queues text[], bodies boolean, again boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
    place text := current_schema();
    p     record;
    what  text;
    f     regprocedure;
    q     text;
    them  oid := (SELECT r.oid FROM pg_roles r WHERE r.rolname = role);
BEGIN
    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass)); -- no queue is made meanwhile
    FOR p IN
        SELECT * FROM privilege x
        WHERE x.kind IN ('every', grant_privileges.kind)
            AND (x.given = 'always' OR x.given = 'all queues' AND queues IS NULL OR x.given = 'bodies' AND bodies)
        ORDER BY x.sort, x.object, x.privilege, x.columns
    LOOP
        what := p.privilege || CASE WHEN p.columns <> '{}' THEN (SELECT format(' (%s)', string_agg(quote_ident(c), ', ')) FROM unnest(p.columns) c) ELSE '' END;
        CASE p.sort
        WHEN 'schema' THEN
            EXECUTE format('GRANT %s ON SCHEMA %I TO %I', what, place, role);
        WHEN 'table' THEN
            EXECUTE format('GRANT %s ON TABLE %I.%I TO %I', what, place, p.object, role);
        WHEN 'sequence' THEN
            EXECUTE format('GRANT %s ON SEQUENCE %I.%I TO %I', what, place, p.object, role);
        WHEN 'function' THEN
            FOR f IN SELECT x.oid FROM pg_proc x WHERE x.pronamespace = quote_ident(place)::regnamespace AND x.proname = p.object
                AND x.proconfig @> ARRAY['search_path=' || quote_ident(place) || ', pg_temp'] -- not one of somebody else's in the same schema
            LOOP
                EXECUTE format('GRANT %s ON ROUTINE %s TO %I', what, f, role);
            END LOOP;
        WHEN 'queue' THEN
            IF queues IS NULL THEN
                EXECUTE format('GRANT %s ON TABLE %I.ready TO %I', what, place, role);
            END IF;
            FOR q IN SELECT n FROM unnest(coalesce(queues, ARRAY(SELECT name FROM queue))) n LOOP
                -- A queue that was taken back from a role that has all of them stays that.
                PERFORM queue_table(q);
                CONTINUE WHEN again AND NOT EXISTS (
                    SELECT FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = queue_table(q) AND a.grantee = them
                    UNION ALL
                    SELECT FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = queue_table(q) AND a.grantee = them);
                EXECUTE format('GRANT %s ON TABLE %I.%I TO %I', what, place, 'q_' || q, role);
                IF p.privilege = 'SELECT' THEN
                    EXECUTE format('GRANT SELECT ON SEQUENCE %I.%I TO %I', place, 's_' || q, role);
                END IF;
            END LOOP;
        END CASE;
    END LOOP;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_privileges IS 'Gives to a role what the table privilege has for a kind of role, of the named queues or, with null, of all. Again: of queues of which it has something still. It checks nothing, and writes nothing down: grant_role does.';

-- +goose StatementBegin
CREATE FUNCTION grant_role(role name, kind text, queues text[] DEFAULT NULL, bodies boolean DEFAULT false, events text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10s' -- every role of the database can take the advisory lock
AS $$
DECLARE
    event text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = grant_role.role) THEN
        RAISE undefined_object USING MESSAGE = format('role %s does not exist', coalesce(to_json(role::text)::text, 'null')),
            HINT = 'Everybody at once (PUBLIC) cannot be granted anything.';
    END IF;
    IF kind IS NULL OR kind NOT IN ('producer', 'consumer', 'operator', 'viewer') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('kind of role %s is not known', coalesce(to_json(kind)::text, 'null')),
            HINT = 'Use producer, consumer, operator or viewer.';
    END IF;
    IF bodies IS DISTINCT FROM false AND kind <> 'viewer' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'bodies are granted to viewers only', HINT = 'Consumers and operators see them anyway; producers do not.';
    END IF;
    PERFORM grant_privileges(role, kind, queues, bodies);
    IF events IS NOT NULL AND kind NOT IN ('consumer', 'operator') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'events are granted to consumers and operators only', HINT = 'Producers publish any event; viewers subscribe no queue.';
    END IF;
    FOREACH event IN ARRAY coalesce(events, '{}') LOOP
        PERFORM check_message(event, 'null', NULL);
    END LOOP;
    IF kind IN ('consumer', 'operator') THEN
        IF events IS NOT NULL THEN -- instead of what it could before, of those queues
            DELETE FROM subscriber s WHERE s.role = grant_role.role AND (queues IS NULL OR s.queue = ANY (queues));
        END IF;
        INSERT INTO subscriber (role, queue, type)
        SELECT grant_role.role, q, t FROM unnest(coalesce(queues, ARRAY[''])) q, unnest(coalesce(events, ARRAY[''])) t ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO granted AS d (role, role_oid, kind, queue, bodies)
    SELECT DISTINCT r.rolname, r.oid, grant_role.kind, q, coalesce(grant_role.bodies, false)
    FROM pg_roles r, unnest(coalesce(queues, ARRAY[''])) q WHERE r.rolname = grant_role.role
    ON CONFLICT ON CONSTRAINT granted_pkey DO UPDATE SET role_oid = EXCLUDED.role_oid, bodies = d.bodies AND d.role_oid = EXCLUDED.role_oid OR EXCLUDED.bodies;
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION grant_role IS 'Lets a role be producer (sends, publishes, reads nothing), consumer (runs endpoints), operator (everything on messages; of all queues: makes and drops them) or viewer (counts and lists, no headers and bodies unless bodies), of the named queues or, with null, of all, those included that are made later. Consumers and operators may subscribe these queues to the named event types or, with null, to any, and so read those events. A role may be several.';

-- +goose StatementBegin
CREATE FUNCTION revoke_role(role name, queues text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10s' -- every role of the database can take the advisory lock
AS $$
DECLARE
    place text := current_schema();
    p     record;
    q     text;
    f     regprocedure;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = revoke_role.role) THEN
        RAISE undefined_object USING MESSAGE = format('role %s does not exist', coalesce(to_json(role::text)::text, 'null')),
            HINT = 'Everybody at once (PUBLIC) cannot be granted anything.';
    END IF;
    PERFORM pg_advisory_xact_lock(1936813169, queue_lock_key('queue'::regclass));
    FOR q IN SELECT n FROM unnest(coalesce(queues, ARRAY(SELECT name FROM queue))) n LOOP
        PERFORM queue_table(q);
        EXECUTE format('REVOKE ALL ON TABLE %I.%I FROM %I', place, 'q_' || q, role);
        EXECUTE format('REVOKE ALL ON SEQUENCE %I.%I FROM %I', place, 's_' || q, role);
    END LOOP;
    DELETE FROM subscriber s WHERE s.role = revoke_role.role AND (queues IS NULL OR s.queue = ANY (queues));
    DELETE FROM granted d WHERE d.role = revoke_role.role AND (queues IS NULL OR d.queue = ANY (queues));
    IF queues IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('REVOKE ALL ON TABLE %I.ready FROM %I', place, role);
    FOR p IN SELECT DISTINCT x.sort, x.object FROM privilege x WHERE x.sort IN ('table', 'sequence') LOOP
        EXECUTE format('REVOKE ALL ON %s %I.%I FROM %I', p.sort, place, p.object, role);
    END LOOP;
    FOR f IN SELECT x.oid FROM pg_proc x WHERE x.pronamespace = quote_ident(place)::regnamespace
        AND x.proconfig @> ARRAY['search_path=' || quote_ident(place) || ', pg_temp'] LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM %I', f, role);
    END LOOP;
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %I', place, role);
END $$;
-- +goose StatementEnd
COMMENT ON FUNCTION revoke_role IS 'Takes everything that grant_role gave to a role: with null all of it, use of the schema included, else what it has on the tables of the named queues.';

CALL finish_migration('grant_privileges', 'grant_role', 'revoke_role');

-- +goose Down

DROP FUNCTION revoke_role, grant_role, grant_privileges;
