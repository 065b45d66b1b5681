import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from examples import examples
from rasteret_sql.errors import InputError
from rasteret_sql.grid import value_tables
from rasteret_sql.grid.coverage import coverage_fractions
from rasteret_sql.grid.masks import polygon_mask
from rasteret_sql.grid.reproject import polygonal
from rasteret_sql.grid.value_tables import ValueTable
from rasteret_sql.grid.zonal import STATISTICS, ZonalStatistics, quantile_of
from rasteret_sql.units import Window

QUANTILES = ("p05", "p25", "p50", "p95", "p99.9", "p0", "p100")
ALL = (*STATISTICS, *QUANTILES)
COLUMNS = [name for name in ALL if name != "frac"]


def gather(zones, zone, values, stats=ALL, **more):
    gathered = ZonalStatistics(zones, stats, values.dtype)
    gathered.add(np.asarray(zone), values, **more)
    return gathered


def weighted_quantile(values, weights, q):
    """The definition, cell by cell."""
    order = np.lexsort((weights, values))
    v, w = values[order].astype(float), weights[order].astype(float)
    n, before = len(v), np.cumsum(w) - w
    place = np.arange(n) * w + (n - 1) * before
    return np.interp(q * (n - 1) * w.sum(), place, v)


def share_of(values, weights):
    return {v: weights[values == v].sum() for v in np.unique(values)}


def expected(values, coverage, weights):
    """Each statistic of one zone that is not empty, with NumPy."""
    w = coverage.astype(float) * weights
    mean = np.average(values.astype(float), weights=w)
    variance = np.average((values.astype(float) - mean) ** 2, weights=w)
    share = share_of(values, w)
    most, least = max(share.values()), min(share.values())
    found = {
        "count": coverage.sum(dtype=float),
        "weight_sum": w.sum(),
        "sum": (values.astype(float) * w).sum(),
        "mean": mean,
        "variance": variance,
        "stddev": np.sqrt(variance),
        "min": values.min(),
        "max": values.max(),
        "variety": len(share),
        "majority": max(v for v, s in share.items() if s == most),
        "minority": min(v for v, s in share.items() if s == least),
        "median": weighted_quantile(values, w, 0.5),
    }
    found["mode"] = found["majority"]
    for name in QUANTILES:
        found[name] = weighted_quantile(values, w, float(name[1:]) / 100)
    return found


# Sums of these are exact, so ties of weights are ties however the sums are made.
eighths = st.integers(1, 8).map(lambda n: n / 8)
dtypes = st.sampled_from(["uint8", "int16", "int64", "uint64", "float32", "float64"])


@st.composite
def cells(draw):
    dtype = np.dtype(draw(dtypes))
    n = draw(st.integers(1, 60))
    zones = draw(st.integers(1, 5))
    zone = np.array(draw(st.lists(st.integers(0, zones - 1), min_size=n, max_size=n)))
    low, high = (0, 255) if dtype.kind == "u" else (-128, 127)
    width = draw(st.sampled_from([3, 40, 255]))
    number = st.integers(low, low + min(width, high - low))
    values = np.array(draw(st.lists(number, min_size=n, max_size=n))).astype(dtype)
    if dtype == "uint64":
        values += np.uint64(2**64 - 2**9)
    if dtype.kind == "f":
        values /= 7
    coverage = np.array(draw(st.lists(eighths, min_size=n, max_size=n)), np.float32)
    weights = np.array(draw(st.lists(eighths, min_size=n, max_size=n)))
    valid = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return zones, zone, values, coverage, weights, valid


@settings(max_examples=examples(60, 150), deadline=None)
@given(case=cells(), has_coverage=st.booleans(), has_weights=st.booleans())
def test_every_statistic_is_that_of_numpy(case, has_coverage, has_weights):
    zones, zone, values, coverage, weights, valid = case
    more = {"coverage": coverage} if has_coverage else {}
    more |= {"weights": weights} if has_weights else {}
    got = gather(zones, zone, values, valid=valid, **more)
    coverage = coverage if has_coverage else np.ones(len(zone), np.float32)
    weights = weights if has_weights else np.ones(len(zone))
    columns = {name: got.column(name) for name in COLUMNS}
    shares = got.shares()
    for i in range(zones):
        mine = zone == i
        used = mine & valid
        assert columns["pixel_count"].values[i] == mine.sum()
        assert columns["nodata_count"].values[i] == (mine & ~valid).sum()
        rows = slice(shares.offsets[i], shares.offsets[i + 1])
        if not used.any():
            for name in ("mean", "stddev", "min", "max", "median", "majority", "p95"):
                assert not columns[name].valid[i]
            for name in ("count", "weight_sum", "sum", "variety"):
                assert columns[name].valid[i]
                assert columns[name].values[i] == 0
            assert rows.start == rows.stop
            continue
        want = expected(values[used], coverage[used], weights[used])
        scale = max(abs(float(values[used].max())), abs(float(values[used].min())), 1)
        for name, value in want.items():
            column = columns[name]
            assert column.valid[i]
            if name in {"min", "max", "majority", "minority", "mode", "variety"}:
                assert column.values[i] == value, name
                continue
            power = {"sum": used.sum(), "variance": scale, "stddev": 1e4}.get(name, 1)
            assert column.values[i] == pytest.approx(value, rel=1e-12, abs=1e-12 * scale * power)
        share = share_of(values[used], (coverage * weights)[used])
        total = sum(share.values())
        assert shares.values[rows].tolist() == list(share)
        np.testing.assert_allclose(shares.shares[rows], [s / total for s in share.values()])


@settings(max_examples=examples(40, 100), deadline=None)
@given(case=cells(), data=st.data())
def test_parts_in_any_split_merge_to_the_whole(case, data):
    zones, zone, values, coverage, weights, valid = case
    whole = gather(zones, zone, values, coverage=coverage, weights=weights, valid=valid)
    parts = data.draw(st.integers(2, 5))
    part = np.array(
        data.draw(st.lists(st.integers(0, parts - 1), min_size=len(zone), max_size=len(zone)))
    )
    merged = ZonalStatistics(zones, ALL, values.dtype)
    tree = [ZonalStatistics(zones, ALL, values.dtype) for _ in range(2)]
    for i in range(parts):
        of = part == i
        tree[i % 2].add(
            zone[of], values[of], coverage=coverage[of], weights=weights[of], valid=valid[of]
        )
    for gathered in tree:
        merged.merge(gathered)
    scale = float(np.abs(values.astype(float)).max())
    for name in COLUMNS:
        got, want = merged.column(name), whole.column(name)
        np.testing.assert_array_equal(got.valid, want.valid)
        if name in {"sum", "mean", "variance", "stddev"}:
            limit = 1e-12 * max(scale, 1) ** (2 if name == "variance" else 1)
            limit *= {"sum": len(zone), "stddev": 1e5}.get(name, 1)
            np.testing.assert_allclose(got.values, want.values, rtol=1e-12, atol=limit)
        else:
            np.testing.assert_array_equal(got.values, want.values)
    for got, want in zip(merged.shares(), whole.shares(), strict=True):
        np.testing.assert_array_equal(got, want)


@settings(max_examples=examples(40, 100), deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    weight=st.sampled_from([None, 0.3, 7.0]),
    q=st.floats(0, 1),
)
def test_quantiles_are_those_of_numpy_where_weights_are_equal(values, weight, q):
    values = np.array(values)
    more = {} if weight is None else {"weights": np.full(len(values), weight)}
    got = gather(1, np.zeros(len(values), int), values, ["median"], **more)
    assert got.quantile(q).values[0] == np.quantile(values, q)
    assert got.column("median").values[0] == pytest.approx(np.median(values), rel=1e-14)


def test_quantiles_of_cells_of_equal_value_are_not_those_of_one_cell():
    got = gather(1, np.zeros(4, int), np.array([1, 1, 1, 2], np.uint8), ["median", "p90"])
    assert got.column("median").values[0] == 1
    assert got.column("p90").values[0] == pytest.approx(np.quantile([1, 1, 1, 2], 0.9))


def test_zones_of_unlike_scale_do_not_disturb_each_others_quantiles():
    rng = np.random.default_rng(5)
    zone = np.repeat(np.arange(200), 50)
    values = rng.normal(size=len(zone))
    weights = rng.uniform(0.1, 1, len(zone)) * np.repeat(10.0 ** rng.integers(-14, 9, 200), 50)
    got = gather(200, zone, values, ["median", "p05"], weights=weights)
    for i in range(200):
        own = zone == i
        for name, q in (("median", 0.5), ("p05", 0.05)):
            want = weighted_quantile(values[own], weights[own], q)
            assert got.column(name).values[i] == pytest.approx(want, rel=1e-9, abs=1e-9)


def raster_and_zones(dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.permutation(30 * 30).reshape(30, 30)
    if dtype == "classes":
        values = rng.integers(0, 6, (30, 30))
    values = values.astype(np.float32 if dtype == "float32" else np.int16)
    zones = []
    for _ in range(25):
        ring = rng.uniform(2, 28, 2) + rng.normal(0, 4, (5, 2))
        zones.append(polygonal(shapely.Polygon(ring)) & shapely.box(0, 0, 30, 30))
    return values, [zone for zone in zones if zone.area > 1]


def cells_of(zones, values, mask):
    """Zone, value and coverage of every cell of every zone."""
    window = Window(0, *values.shape[:1], 0, values.shape[1])
    columns = []
    for i, area in enumerate(zones):
        coverage = mask(area, window).astype(np.float32)
        columns.append([np.full(values.size, i), values.ravel(), coverage.ravel()])
    return [np.concatenate(column) for column in zip(*columns, strict=True)]


NAMES = {
    "count": "count",
    "sum": "sum",
    "mean": "mean",
    "min": "min",
    "max": "max",
    "variance": "variance",
    "stdev": "stddev",
    "variety": "variety",
    "majority": "majority",
    "minority": "minority",
}


@pytest.mark.parametrize("dtype", ["float32", "int16", "classes"])
def test_statistics_are_those_of_exactextract(dtype):
    exactextract = pytest.importorskip("exactextract")
    values, zones = raster_and_zones(dtype, 3)
    features = [
        {
            "type": "Feature",
            "geometry": shapely.transform(z, lambda xy: [0, 30] + xy * [1, -1]).__geo_interface__,
            "properties": {},
        }
        for z in zones
    ]
    raster = exactextract.raster.NumPyRasterSource(values, 0, 0, 30, 30)
    names = [*NAMES, "unique", "frac"]
    if dtype == "float32":  # integers are truncated there, and equal cells joined
        names += ["median", "quantile(q=0.05)", "quantile(q=0.9)"]
    results = exactextract.exact_extract(raster, features, names)
    zone, cell, coverage = cells_of(zones, values, coverage_fractions)
    got = gather(len(zones), zone, cell, (*ALL, "p90"), coverage=coverage)
    shares = got.shares()
    for i, result in enumerate(r["properties"] for r in results):
        for theirs, ours in NAMES.items():
            assert got.column(ours).values[i] == pytest.approx(result[theirs], rel=1e-6), ours
        if dtype == "float32":
            for theirs, ours in (
                ("median", "median"),
                ("quantile_5", "p05"),
                ("quantile_90", "p90"),
            ):
                assert got.column(ours).values[i] == pytest.approx(result[theirs], rel=1e-5), ours
        rows = slice(shares.offsets[i], shares.offsets[i + 1])
        order = np.argsort(result["unique"])
        assert shares.values[rows].tolist() == np.asarray(result["unique"])[order].tolist()
        np.testing.assert_allclose(
            shares.shares[rows], np.asarray(result["frac"])[order], atol=1e-6
        )


def test_means_by_a_weight_band_are_those_of_exactextract():
    exactextract = pytest.importorskip("exactextract")
    values, zones = raster_and_zones("float32", 9)
    band = np.random.default_rng(1).uniform(0, 3, values.shape)
    on_map = [shapely.transform(z, lambda xy: [0, 30] + xy * [1, -1]) for z in zones]
    features = [
        {"type": "Feature", "geometry": z.__geo_interface__, "properties": {}} for z in on_map
    ]
    sources = [
        exactextract.raster.NumPyRasterSource(array, 0, 0, 30, 30) for array in (values, band)
    ]
    names = ["weighted_mean", "weighted_sum", "weighted_variance", "weighted_stdev", "count"]
    results = exactextract.exact_extract(sources[0], features, names, weights=sources[1])
    zone, cell, coverage = cells_of(zones, values, coverage_fractions)
    weights = np.tile(band.ravel(), len(zones))
    ours = ["mean", "sum", "variance", "stddev", "count"]
    got = gather(len(zones), zone, cell, ours, coverage=coverage, weights=weights)
    for i, result in enumerate(r["properties"] for r in results):
        for theirs, name in zip(names, ours, strict=True):
            assert got.column(name).values[i] == pytest.approx(result[theirs], rel=1e-6), name


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_statistics_of_centres_are_those_of_rasterstats():
    rasterstats = pytest.importorskip("rasterstats")
    from affine import Affine

    values, zones = raster_and_zones("classes", 4)
    on_map = [shapely.transform(z, lambda xy: [0, 30] + xy * [1, -1]) for z in zones]
    names = ["count", "sum", "mean", "min", "max", "std", "median", "percentile_95", "unique"]
    results = rasterstats.zonal_stats(
        on_map, values, affine=Affine(1, 0, 0, 0, -1, 30), stats=names, nodata=-1
    )
    zone, cell, inside = cells_of(zones, values, polygon_mask)
    ours = ["count", "sum", "mean", "min", "max", "stddev", "median", "p95", "variety"]
    got = gather(len(zones), zone[inside > 0], cell[inside > 0], ours)
    for i, result in enumerate(results):
        for theirs, name in zip(names, ours, strict=True):
            assert got.column(name).values[i] == pytest.approx(result[theirs], rel=1e-12), name


def test_ties_go_to_the_greatest_majority_and_the_lowest_minority():
    got = gather(1, np.zeros(6, int), np.array([3, 3, 9, 9, 5, 7], np.int16))
    assert got.column("majority").values[0] == 9
    assert got.column("mode").values[0] == 9
    assert got.column("minority").values[0] == 5


def test_nan_is_no_data_and_infinity_a_value():
    values = np.array([1, np.nan, 3, np.inf, np.nan], np.float32)
    got = gather(2, [0, 0, 0, 1, 1], values)
    assert got.column("nodata_count").values.tolist() == [1, 1]
    assert got.column("pixel_count").values.tolist() == [3, 2]
    assert got.column("mean").values.tolist() == [2, np.inf]
    assert got.column("median").values.tolist() == [2, np.inf]


def test_pixels_without_coverage_are_outside_and_without_weight_only_counted():
    values = np.array([1, 2, 3], np.uint8)
    got = gather(
        1,
        [0, 0, 0],
        values,
        coverage=np.array([0, 1, 0.5], np.float32),
        weights=np.array([5, 0, 2]),
    )
    assert got.column("pixel_count").values[0] == 2
    assert got.column("count").values[0] == 1.5
    assert got.column("weight_sum").values[0] == 1
    assert got.column("min").values[0] == 2
    assert got.column("mean").values[0] == 3
    assert got.column("variety").values[0] == 1
    assert got.column("median").values[0] == 3


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_values_at_the_limits_of_a_type_stay_exact(dtype):
    info = np.iinfo(dtype)
    values = np.array([info.min, info.max, info.max, info.max - 1], dtype)
    got = gather(1, np.zeros(4, int), values)
    assert got.column("min").values[0] == info.min
    assert got.column("max").values[0] == info.max
    assert got.column("majority").values[0] == info.max
    assert got.shares().values.tolist() == sorted({info.min, info.max - 1, info.max})


def test_tables_counted_by_index_are_those_that_are_sorted(monkeypatch):
    rng = np.random.default_rng(2)
    zone = np.sort(rng.integers(3, 9, 5000))
    values = rng.integers(-128, 128, 5000).astype(np.int8)
    weights = rng.integers(0, 5, 5000) / 4
    for weight in (None, weights):
        counted = ValueTable.of(zone, values, weight)
        with monkeypatch.context() as patch:
            patch.setattr(value_tables, "_MAX_KEYS", 0)
            by_sort = ValueTable.of(zone, values, weight)
        for got, want in zip(counted, by_sort, strict=True):
            np.testing.assert_array_equal(got, want)
            assert got.dtype == want.dtype


def test_memory_of_integers_is_that_of_a_histogram():
    rng = np.random.default_rng(6)
    got = ZonalStatistics(4, ["median", "p95"], "uint8")
    for _ in range(40):
        zone = np.sort(rng.integers(0, 4, 100_000))
        got.add(zone, rng.integers(0, 256, 100_000).astype(np.uint8))
    assert got.nbytes < 16e6
    got.column("median")
    assert got.nbytes < 60_000
    assert got.column("median").valid.all()


def test_what_does_not_fit_does_not_merge():
    first = ZonalStatistics(2, ["mean"], "uint8")
    for other in (
        ZonalStatistics(3, ["mean"], "uint8"),
        ZonalStatistics(2, ["max"], "uint8"),
        ZonalStatistics(2, ["mean"], "int8"),
    ):
        with pytest.raises(ValueError, match="do not merge"):
            first.merge(other)


@pytest.mark.parametrize("name", ["average", "p101", "p", "p-5", "q05", ""])
def test_statistics_that_do_not_exist_are_refused(name):
    with pytest.raises(InputError, match="stats: expected names of count"):
        quantile_of(name)


def test_a_statistic_must_be_asked_for_first():
    got = ZonalStatistics(1, ["mean"], "uint8")
    for ask in (lambda: got.column("max"), lambda: got.quantile(0.5), got.shares):
        with pytest.raises(InputError, match="stats: expected"):
            ask()
    with pytest.raises(InputError, match="see shares"):
        ZonalStatistics(1, ["frac"], "uint8").column("frac")


def test_zones_taken_out_and_put_back_under_other_numbers():
    rng = np.random.default_rng(8)
    zone, values = np.sort(rng.integers(0, 6, 500)), rng.integers(0, 20, 500).astype(np.int16)
    stats = ["count", "sum", "stddev", "min", "max", "median", "majority", "pixel_count"]
    whole = ZonalStatistics(6, stats, "int16")
    whole.add(zone, values, valid=values != 3)
    moved = ZonalStatistics(6, stats, "int16")
    moved.add(zone, values, valid=values != 3)
    some = moved.pop(np.array([1, 4]))
    assert moved.column("count").values[[1, 4]].tolist() == [0, 0]
    assert not moved.column("max").valid[[1, 4]].any()
    other = ZonalStatistics(9, stats, "int16")
    other.merge(some, np.array([2, 8]))
    other.merge(moved.pop(np.array([0])), np.array([5]))
    for name in stats:
        wanted, got = whole.column(name), other.column(name)
        np.testing.assert_array_equal(got.values[[2, 8, 5]], wanted.values[[1, 4, 0]], name)
        np.testing.assert_array_equal(moved.column(name).values[5], wanted.values[5], name)
    with pytest.raises(ValueError, match="do not merge"):
        other.merge(some)
