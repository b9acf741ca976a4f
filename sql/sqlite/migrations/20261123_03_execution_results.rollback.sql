DROP TABLE IF EXISTS execution_results;
