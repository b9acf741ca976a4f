-- Reaped runs by the time of their reaping: partial, so that a start never writes it.
CREATE INDEX IF NOT EXISTS execution_results_reaped_finished_at
    ON execution_results (finished_at) WHERE reaped = 1;
