"""The database: raw SQL from `sql/`, applied in one transaction a batch.

Nothing outside this package and `sql/` knows which engine it is.
"""
