DROP TABLE IF EXISTS rejected_events;
