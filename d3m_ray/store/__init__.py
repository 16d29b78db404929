"""The Parquet store: one file per result, named by the key of what produced it."""
