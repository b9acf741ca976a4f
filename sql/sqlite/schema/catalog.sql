-- Every object of the database, and the columns of each index in their order.
-- An expression, or a collation other than the usual one, never equals the name of a column.
-- Frequency: once per migration or dry run. Index: none; one row for each object.
SELECT
    object.type,
    lower(object.name) AS name,
    lower(object.tbl_name) AS table_name,
    object.sql AS definition,
    (
        SELECT group_concat(column_name)
        FROM (
            SELECT coalesce(lower(name), '(expression)') || iif(coll = 'BINARY', '', ' ' || coll)
                AS column_name
            FROM pragma_index_xinfo(object.name) WHERE key = 1 ORDER BY seqno
        )
    ) AS columns
FROM sqlite_schema AS object;
