"""URLs to stores, byte ranges, retries. The only importer of obstore."""
