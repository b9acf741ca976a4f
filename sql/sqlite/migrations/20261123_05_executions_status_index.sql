-- Executions by status: what is pending or running now, without reading the finished ones.
CREATE INDEX IF NOT EXISTS executions_status ON executions (status);
