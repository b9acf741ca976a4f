-- IMMEDIATE, so that the wait for a writer honours the busy timeout.
BEGIN IMMEDIATE;
