"""Everything that knows DuckDB."""
