"""The SQL functions, one family a file."""
