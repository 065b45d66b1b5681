-- Band math, bit tests and tile arithmetic. No table is read here; no Python is needed.

CREATE OR REPLACE MACRO rasteret_normalized_difference(a, b) AS
    (a::DOUBLE - b) / nullif(a::DOUBLE + b, 0);

COMMENT ON MACRO rasteret_normalized_difference IS $doc$
Normalized difference (a - b) / (a + b).

a         numeric  first band
b         numeric  second band
returns   DOUBLE, NULL where either is NULL or the sum is 0
example   SELECT rasteret_normalized_difference(3000, 1000)
result    0.5
$doc$;

CREATE OR REPLACE MACRO rasteret_ndvi(red, nir) AS
    (nir::DOUBLE - red) / nullif(nir::DOUBLE + red, 0);

COMMENT ON MACRO rasteret_ndvi IS $doc$
Normalized difference vegetation index.

red       numeric  red reflectance, any scale
nir       numeric  near infrared reflectance, same scale
returns   DOUBLE from -1 to 1, NULL where either is NULL or the sum is 0
example   SELECT rasteret_ndvi(1000, 3000)
result    0.5
$doc$;

CREATE OR REPLACE MACRO rasteret_evi(blue, red, nir) AS
    2.5::DOUBLE * (nir::DOUBLE - red)
    / nullif(nir::DOUBLE + 6::DOUBLE * red - 7.5::DOUBLE * blue + 1::DOUBLE, 0);

COMMENT ON MACRO rasteret_evi IS $doc$
Enhanced vegetation index (MODIS coefficients); bands are reflectances from 0 to 1.

blue      numeric  blue reflectance
red       numeric  red reflectance
nir       numeric  near infrared reflectance
returns   DOUBLE, NULL where a band is NULL
example   SELECT round(rasteret_evi(0.05, 0.1, 0.4), 4)
result    0.4615
$doc$;

CREATE OR REPLACE MACRO rasteret_scl_clear(scl) AS
    scl IN (4, 5, 6, 7, 11);

COMMENT ON MACRO rasteret_scl_clear IS $doc$
Whether a Sentinel-2 scene classification value is clear land, water or snow.

scl       integer  class of the SCL band; 4 vegetation, 5 bare, 6 water, 7 unclassified, 11 snow
returns   BOOLEAN, NULL for NULL
example   SELECT rasteret_scl_clear(4), rasteret_scl_clear(9)
result    true, false
$doc$;

CREATE OR REPLACE MACRO rasteret_qa_bit(value, "bit") AS
    ((value::BIGINT >> "bit"::INTEGER) & 1) = 1;

COMMENT ON MACRO rasteret_qa_bit IS $doc$
Whether one bit of a quality band is set.

value     integer  quality value, such as Landsat's QA_PIXEL
bit       integer  bit number, 0 is the lowest
returns   BOOLEAN, NULL for NULL
example   SELECT rasteret_qa_bit(8, 3), rasteret_qa_bit(8, 4)
result    true, false
$doc$;

CREATE OR REPLACE MACRO rasteret_bbox_intersects(bbox, west, south, east, north) AS
    bbox.ymin <= north::DOUBLE AND bbox.ymax >= south::DOUBLE
    AND CASE (bbox.xmin > bbox.xmax)::INTEGER + (west::DOUBLE > east::DOUBLE)::INTEGER
        WHEN 0 THEN bbox.xmin <= east::DOUBLE AND bbox.xmax >= west::DOUBLE
        WHEN 1 THEN bbox.xmin <= east::DOUBLE OR bbox.xmax >= west::DOUBLE
        WHEN 2 THEN true
    END;

COMMENT ON MACRO rasteret_bbox_intersects IS $doc$
Whether a record's bounds touch a box; west > east crosses the antimeridian.

In a large collection DuckDB skips row groups by latitude alone. Where no record crosses the
antimeridian, bbox.xmin <= east AND bbox.xmax >= west skips by longitude too.

bbox      STRUCT   xmin, ymin, xmax, ymax in degrees, as the column bbox of a collection; xmin > xmax
          crosses the antimeridian
west      DOUBLE   longitude of the west edge
south     DOUBLE   latitude of the south edge
east      DOUBLE   longitude of the east edge
north     DOUBLE   latitude of the north edge
returns   BOOLEAN
example   SELECT rasteret_bbox_intersects({xmin: 1.0, ymin: 1.0, xmax: 2.0, ymax: 2.0}, 2, 2, 3, 3)
result    true
$doc$;

CREATE OR REPLACE MACRO rasteret_split(key, train := 0.8, val := 0.1) AS
    CASE
        WHEN key IS NULL THEN NULL
        WHEN (('0x' || md5(key::VARCHAR)[1:8])::BIGINT / 4294967296.0) < train THEN 'train'
        WHEN (('0x' || md5(key::VARCHAR)[1:8])::BIGINT / 4294967296.0) < train + val THEN 'val'
        ELSE 'test'
    END;

COMMENT ON MACRO rasteret_split IS $doc$
Deterministic train, val or test by the hash (MD5) of a key.

key       any      what must stay together, such as a grid cell
train     DOUBLE   share of train
val       DOUBLE   share of val; the rest is test
returns   VARCHAR, the same for a key in every version; NULL for NULL
example   SELECT rasteret_split('32TQM'), rasteret_split('32TQN', train := 0.0, val := 0.0)
result    train, test
$doc$;

CREATE OR REPLACE MACRO rasteret_tile_span(start_px, stop_px, tile_px) AS
    CASE
        WHEN stop_px > start_px
        THEN {tile_start: start_px // tile_px, tile_stop: (stop_px - 1) // tile_px + 1}
        WHEN stop_px <= start_px
        THEN error('rasteret_tile_span: stop_px: expected more than ' || start_px || ', got '
                   || stop_px || '; the range is half-open')
    END;

COMMENT ON MACRO rasteret_tile_span IS $doc$
Tiles that a run of pixels touches, along one axis.

start_px  BIGINT   first pixel read, counted from the image's upper-left corner
stop_px   BIGINT   first pixel not read
tile_px   BIGINT   length of a tile on this axis, in pixels
returns   STRUCT(tile_start, tile_stop), tile indices, half-open
raises    stop_px: an empty run
example   SELECT rasteret_tile_span(200, 300, 256)
result    {'tile_start': 0, 'tile_stop': 2}
$doc$;

CREATE OR REPLACE MACRO rasteret_num_tiles(metadata) AS
    len(metadata.tile_offsets);

COMMENT ON MACRO rasteret_num_tiles IS $doc$
Tiles of a band at full resolution.

metadata  STRUCT   a {band}_metadata column
returns   BIGINT, NULL where the band is absent or was unreadable
example   SELECT rasteret_num_tiles({tile_offsets: [8, 1032]})
result    2
$doc$;

CREATE OR REPLACE MACRO rasteret_solar_day(datetime, lon) AS
    make_timestamp(epoch_us(datetime) + round(lon::DOUBLE * 240e6)::BIGINT)::DATE;

COMMENT ON MACRO rasteret_solar_day IS $doc$
The day of a moment by the sun where it was taken: UTC and an hour for each 15 degrees east.
Scenes of one overpass have one solar day, also where it is midnight in UTC meanwhile.

datetime  TIMESTAMP  of the scene, in UTC; or TIMESTAMPTZ
lon       DOUBLE     longitude in degrees, as of the middle of the scene
returns   DATE, NULL where either is NULL
example   SELECT rasteret_solar_day(TIMESTAMP '2024-05-01 22:30:00', 150.0)
result    2024-05-02
$doc$;

CREATE OR REPLACE MACRO rasteret_grid_cell(lon, lat, km := 10) AS (
    SELECT abs(r)::VARCHAR || CASE WHEN r < 0 THEN 'D' ELSE 'U' END || '_'
        || abs(c)::VARCHAR || CASE WHEN c < 0 THEN 'L' ELSE 'R' END
    FROM (
        SELECT r, ceil(x * ceil(2 * pi() * 6378.137 * cos(r * 180 / n * pi() / 180) / k) / 360)::BIGINT
            - 1 AS c
        FROM (
            SELECT x, k, n, ceil(y * n / 180)::BIGINT - 1 AS r
            FROM (
                SELECT lon::DOUBLE AS x, lat::DOUBLE AS y, km::DOUBLE AS k,
                    ceil(pi() * 6378.137 / km::DOUBLE) AS n
            )
        )
    )
);

COMMENT ON MACRO rasteret_grid_cell IS $doc$
The Major TOM grid cell that holds a point.
Rows are counted up and down from the equator, columns right and left of the meridian. Source:
Francis and Czerkawski 2024, "Major TOM", section 3.

lon       DOUBLE   longitude in degrees
lat       DOUBLE   latitude in degrees
km        DOUBLE   length of a cell
returns   VARCHAR, row and column; NULL where either is NULL
example   SELECT rasteret_grid_cell(77.99, 13.01)
result    144U_846R
$doc$;

CREATE OR REPLACE MACRO rasteret_values(pixels, dtype) AS (
    SELECT CASE
        WHEN blob IS NULL OR kind IS NULL THEN NULL
        WHEN size IS NULL THEN error('rasteret_values: dtype: expected bool, uint8 to uint64, int8 '
            || 'to int64 or float16 to float64, got ' || kind || '; leave such a band out')
        WHEN octet_length(blob) % size <> 0 THEN error('rasteret_values: pixels: expected a '
            || 'multiple of ' || size || ' bytes, got ' || octet_length(blob)
            || '; take the entry of dtypes that belongs to the band')
        ELSE list_transform(
            list_transform(
                regexp_extract_all(hex(blob), '.{' || (2 * size) || '}'),
                lambda h: ('0x' || reverse(regexp_replace(rpad(h, 16, '0'), '(.)(.)', '\2\1', 'g')))
                    ::UBIGINT
            ),
            lambda u: CASE
                WHEN kind LIKE 'float%' THEN
                    CASE WHEN (u >> (8 * size - 1)::UBIGINT) = 1 THEN -1.0::DOUBLE ELSE 1.0 END
                    * CASE ((u >> fraction) & (2 * bias + 1))
                        WHEN 2 * bias + 1 THEN CASE WHEN u & ((1::UBIGINT << fraction) - 1) = 0
                            THEN 'inf'::DOUBLE ELSE 'nan'::DOUBLE END
                        WHEN 0 THEN (u & ((1::UBIGINT << fraction) - 1))::DOUBLE
                            * pow(2.0, 1 - bias::INTEGER - fraction::INTEGER)
                        ELSE (1 + (u & ((1::UBIGINT << fraction) - 1))::DOUBLE
                            / pow(2.0, fraction::INTEGER))
                            * pow(2.0, ((u >> fraction) & (2 * bias + 1))::INTEGER - bias::INTEGER)
                    END
                WHEN kind LIKE 'int%' AND (u >> (8 * size - 1)::UBIGINT) = 1
                    THEN (u::HUGEINT - (1::HUGEINT << (8 * size)))::DOUBLE
                ELSE u::DOUBLE
            END
        )
    END
    FROM (
        SELECT blob, kind, CASE
                WHEN kind IN ('bool', 'uint8', 'int8') THEN 1
                WHEN kind IN ('uint16', 'int16', 'float16') THEN 2
                WHEN kind IN ('uint32', 'int32', 'float32') THEN 4
                WHEN kind IN ('uint64', 'int64', 'float64') THEN 8
            END AS size,
            CASE kind WHEN 'float16' THEN 10 WHEN 'float32' THEN 23 ELSE 52 END::UBIGINT
                AS fraction,
            CASE kind WHEN 'float16' THEN 15 WHEN 'float32' THEN 127 ELSE 1023 END::UBIGINT AS bias
        FROM (SELECT pixels::BLOB AS blob, dtype::VARCHAR AS kind)
    )
);

COMMENT ON MACRO rasteret_values IS $doc$
The values of an array column as a list, row by row from the upper left.
Array columns are those of rasteret_read, rasteret_read_tiles, rasteret_chips and
rasteret_composite with format := 'blob'.

pixels    BLOB      values one after another, little-endian
dtype     VARCHAR   NumPy name of their type, as in the columns dtype and dtypes
returns   DOUBLE[]; NULL where either is NULL. 64-bit integers beyond 2^53 are rounded
raises    dtype: complex or unknown; pixels: no whole number of values
example   SELECT rasteret_values('\x01\x00\xFF\xFF'::BLOB, 'int16')
result    [1.0, -1.0]
$doc$;
