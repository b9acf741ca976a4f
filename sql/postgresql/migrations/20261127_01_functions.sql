-- Functions that the columns' defaults, the statements and people use.

-- An instant as the tables store it: text, UTC, in an order that is the order of time. Compare with it:
-- expires_at < stored_instant(now()) uses the index, and expires_at < now() is an error.
CREATE OR REPLACE FUNCTION stored_instant(moment timestamptz) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
AS $$
    SELECT replace(to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '.000000', '')
        || '+00:00'
$$;

-- Whether a text is an instant in stored form: a date and a time of day that exist, +00:00 at its end,
-- and 0, 3, 6 or 9 digits between.
CREATE OR REPLACE FUNCTION is_stored_instant(value text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$
    SELECT value ~ (
        '^\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)|02-(0[1-9]|[12]\d))'
        'T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.(\d{3}){1,3})?\+00:00$'
    ) AND (
        substr(value, 6, 5) <> '02-29'
        OR value ~ '^(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)'
    )
$$;

-- Names this very database: a copy, a restored dump, a server that was promoted or went back to a point
-- in time has another name. The worker writes it into its checkpoint and compares it in each transaction.
-- Where a managed service does not allow these functions, only the database's number is known, so a
-- server that goes back is not noticed by this name. Then replace this function by one that returns
-- whatever the service offers: another text after each failover or restore.
CREATE OR REPLACE FUNCTION database_place() RETURNS text
LANGUAGE plpgsql STABLE
AS $$
BEGIN
    RETURN format(
        '%s/%s/%s',
        (SELECT system_identifier FROM pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (SELECT oid FROM pg_database WHERE datname = current_database())
    );
EXCEPTION
    WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
        RETURN format(
            'unknown/%s', (SELECT oid FROM pg_database WHERE datname = current_database())
        );
END
$$;
