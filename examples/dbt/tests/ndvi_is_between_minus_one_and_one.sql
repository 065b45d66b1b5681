SELECT * FROM {{ ref('parcel_ndvi') }}
WHERE NOT ndvi BETWEEN -1 AND 1
