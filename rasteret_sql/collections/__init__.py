"""The Parquet files of collections: layout, footers, folders."""
