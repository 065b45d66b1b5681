SELECT * FROM {{ ref('ndvi_by_block') }}
WHERE NOT ndvi BETWEEN -1 AND 1
