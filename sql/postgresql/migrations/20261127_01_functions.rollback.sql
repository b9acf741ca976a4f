DROP FUNCTION IF EXISTS database_place();
DROP FUNCTION IF EXISTS is_stored_instant(text);
DROP FUNCTION IF EXISTS stored_instant(timestamptz);
