"""The command line, rasteret-sql."""
