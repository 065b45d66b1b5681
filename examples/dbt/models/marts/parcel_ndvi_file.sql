-- The same as a Parquet file, for tools without DuckDB.
{{ config(materialized='external', location='parcel_ndvi.parquet') }}

SELECT * FROM {{ ref('parcel_ndvi') }}
ORDER BY parcel_id, day
