-- The value of one pixel as a scalar; written by hand, it calls Python.

CREATE OR REPLACE MACRO rasteret_value(record, band, point) AS
    list_transform(
        [_rasteret_value(
            CASE WHEN record IS NOT NULL THEN {
                id: struct_extract(record, 'id'),
                asset: struct_extract(struct_extract(record, 'assets'), band),
                metadata: struct_extract(record, band || '_metadata'),
                crs: struct_extract(record, 'crs'),
                key: hash(
                    struct_extract(record, 'id'),
                    struct_extract(struct_extract(record, 'assets'), band),
                    struct_extract(record, band || '_metadata'),
                    struct_extract(record, 'crs')
                )
            } END,
            band,
            point,
            current_connection_id()::VARCHAR || _rasteret_enter('')
        )],
        lambda found: CASE WHEN found.error IS NULL THEN found.value ELSE error(found.error) END
    )[1];

COMMENT ON MACRO rasteret_value IS $doc$
The value of a band of a record at a point, for joins on any condition.
For all points and all records that hold them use rasteret_sample_points, which reads each tile
once.

record    STRUCT     a row of a collection: the name or alias of the table
band      VARCHAR    a constant
point     any        in longitude and latitude: [lon, lat], or POINT as GEOMETRY, WKB or WKT
returns   DOUBLE; NULL where the point is outside the raster, where there is no data, and where
          the record has no such band; where record or point is NULL
raises    band: unknown; point: no point; a tile that can't be read; bands of complex numbers
example   SELECT s.id, rasteret_value(s, 'B04', [77.987, 13.007]) AS red FROM s2 AS s
$doc$;
