// The page of `rasteret-sql map`: it asks the server for everything that it shows.

import * as maplibre from '/static/vendor/maplibre-gl.mjs';

maplibre.setWorkerUrl('/static/vendor/maplibre-gl-worker.mjs');

const $ = (id) => document.getElementById(id);
const RAMPS = {
  grey: ['#000000', '#ffffff'],
  viridis: ['#440154', '#482878', '#3e4a89', '#31688e', '#26828e', '#1f9e89', '#35b779', '#6ece58', '#b5de2b', '#fde725'],
  magma: ['#000004', '#180f3d', '#440f76', '#721f81', '#9e2f7f', '#cd4071', '#f1605d', '#fd9668', '#feca8d', '#fcfdbf'],
  rdylgn: ['#a50026', '#d73027', '#f46d43', '#fdae61', '#fee08b', '#ffffbf', '#d9ef8b', '#a6d96a', '#66bd63', '#1a9850', '#006837'],
};
const COLOURS = ['#0b6e69', '#b4541a', '#5b3fa0', '#1f6fb2'];
const METHODS = { last: 'newest on top', first: 'oldest on top', median: 'median', mean: 'mean', min: 'least', max: 'greatest' };
const CLOUD = 'eo:cloud_cover';
const MAX_LISTED = 200;
const FADED_ZOOM = 9; // coasts and borders are true to some 10 km: closer they would mislead
const NOTHING = { type: 'FeatureCollection', features: [] };

const state = {
  collection: null,
  isNew: true,     // nothing of the collection was shown yet
  days: [],        // [date, scenes] of all that the filters let through
  day: null,       // the one that is shown; null: all dates
  limits: {},      // rescale of each layer that was fitted or typed
  series: null,    // {kind: 'point' | 'zone', lon, lat, geometry}
  sql: {},         // what was executed, by what it is for
  corners: null,   // of the polygon that is being drawn
  chosen: null,    // id of a scene
  facts: null,     // its columns
  names: [],       // of countries, with their places
};
let map;
let plot;
let player;

// -- asking the server ---------------------------------------------------------------------

let waiting = 0; // questions that are not answered yet

async function ask(path, options) {
  let response;
  let text;
  document.body.dataset.waiting = ++waiting;
  try {
    response = await fetch(path, options);
    text = await response.text();
  } finally {
    document.body.dataset.waiting = --waiting;
  }
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = { error: `server: expected an answer, got ${response.status}` };
  }
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function api(path, parameters, options) {
  const name = encodeURIComponent(state.collection.name);
  return ask(`/api/collections/${name}/${path}?${new URLSearchParams(parameters)}`, options);
}

function complain(message) {
  $('error').hidden = !message;
  $('error').firstElementChild.textContent = message ?? '';
  $('expression').setAttribute('aria-invalid', String(Boolean(message?.startsWith('expression:'))));
}

function latest(work) { // of several calls only the last one's answer counts
  let number = 0;
  return async (...given) => {
    const own = ++number;
    try {
      const finish = await work(...given);
      if (own === number && finish) finish();
    } catch (error) {
      if (own === number) complain(error.message);
    }
  };
}

function soon(work, wait = 250) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}

// -- what is shown -------------------------------------------------------------------------

const mode = () => document.querySelector('input[name=mode]:checked').value;

function shown() { // bands or expression
  if (mode() === 'expression') return { expression: $('expression').value.trim() };
  const bands = mode() === 'rgb' ? [1, 2, 3].map((n) => $(`band-${n}`).value) : [$('band-1').value];
  return { bands: bands.join(',') };
}

const hasColours = () => mode() !== 'rgb';
const hasRange = () => !(hasColours() && $('colormap').value === 'scl');

function layer() {
  const found = shown();
  if (hasColours()) found.colormap = $('colormap').value;
  const limits = state.limits[JSON.stringify(shown())];
  if (hasRange() && limits) found.rescale = limits.flat().join(',');
  if ($('method').value !== 'last') found.method = $('method').value;
  return found;
}

function condition() {
  const parts = [];
  if (CLOUD in state.collection.columns && $('cloud').value < 100) parts.push(`"${CLOUD}" <= ${$('cloud').value}`);
  for (const row of $('filters').children) {
    const [column, operator, value] = [...row.querySelectorAll('select, input')].map((one) => one.value);
    if (value.trim() === '') continue;
    const name = `"${column.replaceAll('"', '""')}"`;
    const isNumber = /INT|DOUBLE|FLOAT|DECIMAL/.test(state.collection.columns[column]);
    const literal = isNumber && Number.isFinite(Number(value)) ? Number(value) : `'${value.replaceAll("'", "''")}'`;
    parts.push(operator === 'contains' ? `contains(${name}::VARCHAR, '${value.replaceAll("'", "''")}')` : `${name} ${operator} ${literal}`);
  }
  return parts.join(' AND ');
}

function range() { // of the dates that the filters allow
  const [from, to] = [$('from').value.trim(), $('to').value.trim()];
  return from || to ? `${from}/${to}` : '';
}

function without(parameters) {
  return Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== '' && value !== undefined));
}

const filter = () => without({ where: condition(), date: state.day ?? range() });

function tileUrl(kind = 'png') {
  const name = encodeURIComponent(state.collection.name);
  const query = new URLSearchParams({ ...layer(), ...filter() });
  return `${location.origin}/tiles/${name}/{z}/{x}/{y}.${kind}?${query}`;
}

function drawTiles() {
  if (!map.getSource('tiles') || (mode() === 'expression' && !$('expression').value.trim())) return;
  complain();
  const isFitted = state.limits[JSON.stringify(shown())] || !hasRange();
  if (!isFitted) return fit();
  map.getSource('tiles').setTiles([tileUrl()]);
  map.setLayoutProperty('tiles', 'visibility', 'visible');
  showRange();
  if (!$('sql').hidden) showSql();
}

const fit = latest(async () => {
  const key = JSON.stringify(shown());
  const { low, high, note: told } = await stretch();
  return () => {
    state.limits[key] = low === undefined ? [[0, 1]] : low.map((value, n) => [value, high[n]]);
    drawTiles();
    if (told) complain(told);
  };
});

async function stretch() {
  const given = layer();
  delete given.rescale;
  const bounds = map.getBounds();
  const bbox = [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()];
  const answer = await api('stretch', { ...given, ...filter(), bbox: bbox.join(',') });
  if (!answer.rescale) return { note: answer.note };
  const round = (value) => Number(value.toPrecision(3));
  return { low: answer.rescale.map((pair) => round(pair[0])), high: answer.rescale.map((pair) => round(pair[1])) };
}

function showRange() {
  const limits = state.limits[JSON.stringify(shown())] ?? [];
  $('low').value = limits.map((pair) => pair[0]).join(', ');
  $('high').value = limits.map((pair) => pair[1]).join(', ');
  const isRamp = hasColours() && hasRange() && limits.length > 0;
  $('legend').hidden = !isRamp;
  if (!isRamp) return;
  $('ramp').style.background = `linear-gradient(90deg, ${RAMPS[$('colormap').value].join(', ')})`;
  $('legend-low').textContent = limits[0]?.[0] ?? '';
  $('legend-high').textContent = limits[0]?.[1] ?? '';
}

function typeRange() {
  const numbers = (id) => $(id).value.split(',').map((text) => Number(text.trim()));
  const [low, high] = [numbers('low'), numbers('high')];
  const isGood = low.length === high.length && low.every((value, n) => Number.isFinite(value) && value < high[n]);
  if (!isGood) return complain('range: expected a low and a high number, the low one first');
  state.limits[JSON.stringify(shown())] = low.map((value, n) => [value, high[n]]);
  drawTiles();
}

function arrange() { // the controls of the mode
  const now = mode();
  $('band-row').hidden = now === 'expression';
  $('band-2').hidden = $('band-3').hidden = now !== 'rgb';
  $('band-1').setAttribute('aria-label', now === 'rgb' ? 'Red' : 'Band');
  $('expression-row').hidden = now !== 'expression';
  $('colormap-row').hidden = !hasColours();
  $('rescale-row').hidden = !hasRange();
  showRange();
}

// -- scenes and dates ----------------------------------------------------------------------

const findScenes = latest(async () => {
  const where = condition();
  const bounds = map.getBounds();
  const bbox = [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()].join(',');
  const date = state.day ?? range();
  const answer = await api('scenes', without({ where, date, bbox }));
  return () => {
    const before = JSON.stringify(state.days);
    state.days = answer.days.filter(([day]) => (!$('from').value || day >= $('from').value) && (!$('to').value || day <= $('to').value));
    map.getSource('outlines').setData(answer.scenes);
    listScenes(answer);
    const isThere = state.days.some(([day]) => day === state.day);
    const isGone = before !== JSON.stringify(state.days) && !$('all-dates').checked && !isThere;
    if (state.isNew || isGone) {
      state.isNew = false;
      setDay(state.days.at(-1)?.[0] ?? null);
    } else {
      drawTime();
    }
  };
});

function listScenes({ total, in_view: inView, scenes }) {
  const shownCount = Math.min(MAX_LISTED, scenes.features.length);
  const more = inView > shownCount ? `, ${shownCount} listed` : '';
  $('count').textContent = `${total.toLocaleString('en')} ${total === 1 ? 'scene' : 'scenes'}, ${inView.toLocaleString('en')} in view${more}`;
  const items = scenes.features.slice(0, MAX_LISTED).map((feature) => {
    const { id, datetime, cloud } = feature.properties;
    const item = document.createElement('li');
    const button = item.appendChild(document.createElement('button'));
    button.type = 'button';
    const image = button.appendChild(new Image());
    image.loading = 'lazy';
    image.alt = '';
    image.src = pictureUrl(id);
    image.onerror = () => image.classList.add('is-absent');
    image.onload = () => image.classList.remove('is-absent');
    const text = button.appendChild(document.createElement('div'));
    text.appendChild(document.createElement('b')).textContent = id;
    const facts = [datetime?.slice(0, 16).replace('T', ' '), cloud == null ? '' : `${cloud.toFixed(1)} % cloud`];
    text.appendChild(document.createElement('small')).textContent = facts.filter(Boolean).join(' · ');
    item.dataset.id = id;
    button.title = id;
    button.onclick = () => chooseScene(feature);
    button.onmouseenter = () => highlight(id);
    button.onmouseleave = () => highlight(state.chosen);
    return item;
  });
  $('scenes').replaceChildren(...items);
  showChosen();
}

function pictureUrl(id) {
  const given = layer();
  const address = `/pictures/${encodeURIComponent(state.collection.name)}/${encodeURIComponent(id)}.png`;
  if (given.expression) {
    const { expression, colormap, rescale } = given;
    return `${address}?${new URLSearchParams(without({ expression, colormap, rescale }))}`;
  }
  const found = given.expression || !given.rescale || given.rescale.split(',').length > 2 ? {} : { rescale: given.rescale };
  if (given.bands) found.bands = given.bands;
  if (given.bands && given.colormap) found.colormap = given.colormap;
  return `${address}?${new URLSearchParams(found)}`;
}

const chooseScene = latest(async (feature) => {
  const { id, datetime } = feature.properties;
  state.chosen = state.chosen === id ? null : id;
  state.facts = null;
  showChosen();
  if (!state.chosen) return undefined;
  if (feature.geometry) map.fitBounds(boundsOf(feature.geometry), { padding: 60, maxZoom: 14, duration: 400 });
  if (datetime && !$('all-dates').checked && datetime.slice(0, 10) !== state.day) setDay(datetime.slice(0, 10));
  const facts = await api(`scenes/${encodeURIComponent(id)}`, {});
  return () => {
    state.facts = facts;
    showChosen();
  };
});

function showChosen() { // in the list and on the map
  highlight(state.chosen);
  document.querySelectorAll('#scenes dl').forEach((one) => one.remove());
  for (const item of $('scenes').children) {
    const isChosen = item.dataset.id === state.chosen;
    item.classList.toggle('is-chosen', isChosen);
    if (!isChosen || !state.facts) continue;
    const list = item.appendChild(document.createElement('dl'));
    for (const [name, value] of Object.entries(state.facts)) {
      list.appendChild(document.createElement('dt')).textContent = name;
      list.appendChild(document.createElement('dd')).textContent = typeof value === 'object' ? JSON.stringify(value) : value;
    }
  }
}

function highlight(id) {
  map.setFilter('outline-chosen', ['==', ['get', 'id'], id ?? '']);
}

function boundsOf(geometry) {
  const bounds = new maplibre.LngLatBounds();
  const add = (part) => (typeof part[0] === 'number' ? bounds.extend(part) : part.forEach(add));
  add(geometry.coordinates);
  return bounds;
}

function setDay(day) {
  state.day = day;
  $('all-dates').checked = day === null && state.days.length > 0;
  drawTime();
  drawTiles();
  findScenes();
  if (plot) {
    plot.redraw();
    plot.setLegend({ idx: null }); // the values of the day
  }
}

function step(by) {
  const at = state.days.findIndex(([day]) => day === state.day);
  const next = at < 0 ? (by > 0 ? 0 : state.days.length - 1) : (at + by + state.days.length) % state.days.length;
  if (state.days.length) setDay(state.days[next][0]);
}

function dayX(day, width) {
  const [first, last] = [state.days[0][0], state.days.at(-1)[0]].map(Date.parse);
  const inset = 8;
  return first === last ? width / 2 : inset + ((Date.parse(day) - first) / (last - first)) * (width - 2 * inset);
}

function drawTime() {
  const canvas = $('slider').firstElementChild;
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio;
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const paint = canvas.getContext('2d');
  paint.scale(scale, scale);
  paint.fillStyle = '#d9dee5';
  paint.fillRect(0, height - 4, width, 1);
  $('day').textContent = state.day ?? (state.days.length ? 'all dates' : 'no dates');
  const at = state.days.findIndex(([day]) => day === state.day);
  const slider = $('slider');
  slider.setAttribute('aria-valuemin', 0);
  slider.setAttribute('aria-valuemax', Math.max(0, state.days.length - 1));
  slider.setAttribute('aria-valuenow', Math.max(0, at));
  slider.setAttribute('aria-valuetext', $('day').textContent);
  if (!state.days.length) return;
  const most = Math.max(...state.days.map(([, count]) => count));
  for (const [day, count] of state.days) {
    const tall = 5 + (count / most) * (height - 13);
    paint.fillStyle = day === state.day ? '#0b6e69' : '#9fb0bf';
    paint.fillRect(dayX(day, width) - (day === state.day ? 3 : 2), height - 4 - tall, day === state.day ? 6 : 4, tall);
  }
}

function pickDay(event) {
  if (!state.days.length) return;
  const box = $('slider').getBoundingClientRect();
  const x = event.clientX - box.left;
  const distance = ([day]) => Math.abs(dayX(day, box.width) - x);
  const nearest = state.days.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  if (nearest[0] !== state.day) setDay(nearest[0]);
}

function play() {
  const isPlaying = Boolean(player);
  clearInterval(player);
  player = isPlaying ? undefined : setInterval(() => step(1), 1200);
  $('play').textContent = isPlaying ? '▶' : '❚❚';
  $('play').setAttribute('aria-label', isPlaying ? 'Play' : 'Pause');
}

// -- values over time ----------------------------------------------------------------------

const showSeries = latest(async () => {
  const { series } = state;
  if (!series) return undefined;
  const given = without({ ...shown(), where: condition(), date: range() });
  const what = given.expression ?? given.bands.split(',').filter((band, n, all) => all.indexOf(band) === n).join(', ');
  $('chart').hidden = false;
  $('chart').querySelector('h2').textContent = `${series.label}: ${what}`;
  $('plot').replaceChildren(note('reading …'));
  try {
    const answer = series.kind === 'point'
      ? await api('point', { ...given, lon: series.lon, lat: series.lat })
      : await api('zone', given, { method: 'POST', body: JSON.stringify(series.geometry) });
    return () => {
      state.sql.series = answer.sql;
      drawChart(series.kind, answer.rows);
      if (!$('sql').hidden) showSql();
    };
  } catch (error) {
    $('plot').replaceChildren(note('nothing to show'));
    throw error;
  }
});

function note(text) {
  const found = document.createElement('p');
  found.textContent = text;
  return found;
}

function drawChart(kind, rows) {
  plot?.destroy();
  plot = undefined;
  const dated = rows.filter((row) => row.datetime);
  const isThere = (row) => (kind === 'point' ? Object.entries(row).some(([name, value]) => !['id', 'datetime'].includes(name) && value !== null) : row.count > 0);
  if (!dated.some(isThere)) return $('plot').replaceChildren(note(rows.length ? 'no data here on any date' : 'no scene here'));
  $('plot').replaceChildren();
  const lines = kind === 'point' ? pointLines(dated) : zoneLines(dated);
  const times = [...new Set(dated.map((row) => row.datetime))].sort();
  const data = [times.map((time) => Date.parse(time) / 1000)];
  const columns = lines.map(({ values }) => times.map((time) => values.get(time) ?? null));
  const size = () => ({ width: $('plot').clientWidth, height: Math.max(130, Math.min(190, $('map').clientHeight * 0.3)) });
  const told = (n, index, text) => { // in the legend: under the pointer, else of the day, else the last
    const ofDay = index ?? times.findLastIndex((time, at) => time.slice(0, 10) === state.day && (n < 0 || columns[n][at] !== null));
    const at = ofDay >= 0 ? ofDay : n < 0 ? times.length - 1 : columns[n].findLastIndex((value) => value !== null);
    const value = n < 0 ? times[at] : columns[n][at];
    return value == null ? '–' : text(value);
  };
  plot = new uPlot({
    ...size(),
    legend: { live: true },
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: true, range: padded } },
    tzDate: (time) => uPlot.tzDate(new Date(time * 1000), 'Etc/UTC'),
    axes: [{ grid: { stroke: '#eceff2' }, space: 78, values: (_, times) => times.map((time) => new Date(time * 1000).toISOString().slice(0, 10)) }, { grid: { stroke: '#eceff2' }, size: 62 }],
    series: [
      { label: 'date', value: (_chart, _time, _series, index) => told(-1, index, (time) => time.slice(0, 16).replace('T', ' ')) },
      ...lines.map(({ label, colour, isEdge }, n) => ({
        label,
        stroke: isEdge ? 'transparent' : colour,
        width: isEdge ? 0 : 1.5,
        points: { show: !isEdge, size: 6, fill: colour },
        spanGaps: true,
        value: (_chart, _value, _series, index) => told(n, index, (value) => String(Number(value.toPrecision(5)))),
      })),
    ],
    bands: lines.flatMap(({ isEdge, colour }, n) => (isEdge === 'upper' ? [{ series: [n + 1, n + 2], fill: `${colour}22` }] : [])),
    hooks: { draw: [markDay], ready: [(chart) => { chart.over.onclick = () => chart.cursor.idx != null && setDay(times[chart.cursor.idx].slice(0, 10)); }] },
  }, [...data, ...columns], $('plot'));
}

function padded(_, low, high) {
  const room = Math.max((high - low) * 0.04, 43200);
  return [low - room, high + room];
}

function pointLines(rows) {
  const names = Object.keys(rows[0]).filter((name) => !['id', 'datetime'].includes(name));
  return names.map((label, n) => ({ label, colour: COLOURS[n % COLOURS.length], values: averaged(rows, (row) => row[label]) }));
}

function zoneLines(rows) {
  const bands = [...new Set(rows.map((row) => row.band))];
  return bands.flatMap((band, n) => {
    const own = rows.filter((row) => row.band === band && row.count > 0);
    const colour = COLOURS[n % COLOURS.length];
    const line = { label: band === 'value' ? 'mean' : `${band} mean`, colour, values: averaged(own, (row) => row.mean) };
    if (bands.length > 1) return [line];
    const edge = (sign) => averaged(own, (row) => row.mean + sign * row.stddev);
    return [
      { label: 'mean + stddev', colour, isEdge: 'upper', values: edge(1) },
      { label: 'mean − stddev', colour, isEdge: 'lower', values: edge(-1) },
      line,
    ];
  });
}

function averaged(rows, valueOf) { // of scenes of one moment that overlap
  const found = new Map();
  for (const row of rows) {
    const value = valueOf(row);
    if (value == null) continue;
    const [sum, count] = found.get(row.datetime) ?? [0, 0];
    found.set(row.datetime, [sum + value, count + 1]);
  }
  return new Map([...found].map(([time, [sum, count]]) => [time, sum / count]));
}

function markDay(chart) {
  if (!state.day) return;
  const x = chart.valToPos(Date.parse(state.day) / 1000 + 43200, 'x', true);
  const { left, width, top, height } = chart.bbox;
  if (x < left || x > left + width) return;
  chart.ctx.save();
  chart.ctx.fillStyle = '#0b6e6922';
  chart.ctx.fillRect(x - 3, top, 6, height);
  chart.ctx.restore();
}

function closeChart() {
  $('chart').hidden = true;
  plot?.destroy();
  plot = undefined;
  state.series = null;
  delete state.sql.series;
  map.getSource('drawing').setData(NOTHING);
  $('clear').hidden = true;
  hint();
  if (!$('sql').hidden) showSql();
}

// -- drawing -------------------------------------------------------------------------------

/** What a click on the map does, as long as nobody can know it. */
function hint() {
  $('hint').hidden = Boolean(state.series) && !state.corners;
  $('hint').textContent = state.corners
    ? 'Click the corners, double-click the last one. Esc gives up.'
    : 'Click the map for values over time';
}

function clickMap({ lngLat }) {
  if (state.corners) {
    state.corners.push([lngLat.lng, lngLat.lat]);
    drawCorners();
    return;
  }
  const { lng: lon, lat } = lngLat.wrap();
  state.series = { kind: 'point', lon, lat, label: `${lon.toFixed(5)}, ${lat.toFixed(5)}` };
  map.getSource('drawing').setData({ type: 'Feature', properties: {}, geometry: { type: 'Point', coordinates: [lon, lat] } });
  $('clear').hidden = false;
  hint();
  showSeries();
}

function drawCorners(end) {
  const corners = end ? [...state.corners, end] : state.corners;
  const type = corners.length > 2 ? 'Polygon' : 'LineString';
  const coordinates = type === 'Polygon' ? [[...corners, corners[0]]] : corners;
  map.getSource('drawing').setData(corners.length > 1 ? { type: 'Feature', properties: {}, geometry: { type, coordinates } } : NOTHING);
}

function startDrawing() {
  if (state.corners) return stopDrawing();
  closeChart();
  state.corners = [];
  $('draw').setAttribute('aria-pressed', 'true');
  $('map').classList.add('is-drawing');
  map.doubleClickZoom.disable();
  hint();
  return undefined;
}

function stopDrawing() {
  state.corners = null;
  $('draw').setAttribute('aria-pressed', 'false');
  $('map').classList.remove('is-drawing');
  map.getSource('drawing').setData(NOTHING);
  hint();
  setTimeout(() => map.doubleClickZoom.enable(), 300);
}

function finishDrawing() {
  const corners = state.corners.filter((corner, n, all) => n === 0 || corner.some((value, axis) => value !== all[n - 1][axis]));
  stopDrawing();
  if (corners.length < 3) return complain('polygon: expected three corners or more; draw it again');
  const geometry = { type: 'Polygon', coordinates: [[...corners, corners[0]]] };
  map.getSource('drawing').setData({ type: 'Feature', properties: {}, geometry });
  state.series = { kind: 'zone', geometry, label: 'polygon' };
  $('clear').hidden = false;
  hint();
  showSeries();
  return undefined;
}

// -- SQL -----------------------------------------------------------------------------------

function centreTile() {
  const zoom = Math.max(0, Math.round(map.getZoom() + 1));
  const { lng, lat } = map.getCenter().wrap();
  const count = 2 ** zoom;
  const x = Math.floor(((lng + 180) / 360) * count);
  const y = Math.floor(((1 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / Math.PI) / 2) * count);
  return { z: zoom, x: Math.min(count - 1, x), y: Math.max(0, Math.min(count - 1, y)) };
}

const showSql = latest(async () => {
  const tile = centreTile();
  const url = tileUrl('sql').replace(/\{([zxy])\}/g, (_, key) => tile[key]);
  const { sql } = await ask(url);
  return () => {
    const parts = [[`Tile in the middle (${tile.z}/${tile.x}/${tile.y})`, sql ?? '-- no scene is here on this date']];
    if (state.sql.series) parts.unshift(['Values over time', state.sql.series]);
    $('sql').replaceChildren(...parts.map(([title, text]) => statement(title, text)));
  };
});

function statement(title, text) {
  const article = document.createElement('article');
  const header = article.appendChild(document.createElement('header'));
  header.appendChild(document.createElement('h2')).textContent = title;
  const button = header.appendChild(document.createElement('button'));
  button.type = 'button';
  button.textContent = 'Copy';
  const code = article.appendChild(document.createElement('pre'));
  code.textContent = text;
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(`${text};\n`);
      button.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = 'Selected: press Ctrl+C';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  };
  return article;
}

// -- the map -------------------------------------------------------------------------------

function graticule() {
  const bounds = map.getBounds();
  const steps = [30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
  const width = bounds.getEast() - bounds.getWest();
  const size = steps.find((one) => width / one >= 5) ?? steps.at(-1);
  const digits = Math.max(0, Math.ceil(-Math.log10(size)));
  const lines = [];
  const labels = [];
  const [south, north] = [Math.max(-85, bounds.getSouth()), Math.min(85, bounds.getNorth())];
  const height = $('map').clientHeight;
  const scale = document.querySelector('.maplibregl-ctrl-scale');
  const right = $('map').clientWidth - (scale?.offsetWidth ?? 0) - 24; // labels end left of the scale
  const every = (low, high, add) => {
    for (let n = Math.ceil(low / size); n <= high / size && lines.length < 400; n += 1) add(n * size);
  };
  every(bounds.getWest(), bounds.getEast(), (lon) => {
    lines.push([[lon, south], [lon, north]]);
    const place = map.project([lon, map.getCenter().lat]);
    const turned = ((((lon + 180) % 360) + 360) % 360) - 180;
    const text = `${Math.abs(turned).toFixed(digits)}° ${turned < 0 ? 'W' : 'E'}`;
    if (place.x + 12 + 7 * text.length < right) labels.push([text, place.x + 3, height - 18]);
  });
  every(south, north, (lat) => {
    lines.push([[bounds.getWest(), lat], [bounds.getEast(), lat]]);
    const { y } = map.project([map.getCenter().lng, lat]);
    if (y < height - 38) labels.push([`${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? 'S' : 'N'}`, 4, y + 1]);
  });
  map.getSource('graticule').setData({ type: 'Feature', properties: {}, geometry: { type: 'MultiLineString', coordinates: lines } });
  $('grid-labels').replaceChildren(...labels.map(([text, x, y]) => {
    const label = document.createElement('span');
    label.textContent = text;
    label.style.transform = `translate(${x}px, ${y}px)`;
    return label;
  }));
}

function countries({ arcs: deltas, objects, transform: { scale, translate } }) { // TopoJSON as GeoJSON
  const arcs = deltas.map((delta) => {
    let [x, y] = [0, 0];
    return delta.map(([dx, dy]) => {
      x += dx;
      y += dy;
      return [x * scale[0] + translate[0], y * scale[1] + translate[1]];
    });
  });
  const ring = (numbers) => numbers.flatMap((n, at) => (n < 0 ? arcs[~n].toReversed() : arcs[n]).slice(at && 1));
  const isCut = ([[a], [b]]) => Math.abs(a) > 179.9 && Math.abs(b) > 179.9; // at 180° no border is
  const borders = arcs.map((arc) => arc.slice(1).map((point, n) => [arc[n], point]).filter((pair) => !isCut(pair)));
  const shapes = objects.countries.geometries.map(({ type, arcs: numbers, properties: { name } }) => {
    const polygons = (type === 'Polygon' ? [numbers] : numbers ?? []).map((rings) => rings.map(ring));
    return { name, polygons: polygons.filter(([outer]) => outer.length > 3) };
  });
  const feature = (geometry) => ({ type: 'Feature', properties: {}, geometry });
  return {
    land: feature({ type: 'MultiPolygon', coordinates: shapes.flatMap(({ polygons }) => polygons) }),
    borders: feature({ type: 'MultiLineString', coordinates: borders.flat() }),
    names: shapes.filter(({ polygons }) => polygons.length).map(labelled).sort((a, b) => b.size - a.size),
  };
}

function labelled({ name, polygons }) { // in the middle of the largest part
  const parts = polygons.map(([outer]) => {
    let [area, x, y] = [0, 0, 0];
    outer.slice(1).forEach(([x2, y2], n) => {
      const [x1, y1] = outer[n];
      const cross = x1 * y2 - x2 * y1;
      area += cross / 2;
      x += ((x1 + x2) * cross) / 6;
      y += ((y1 + y2) * cross) / 6;
    });
    return { size: Math.abs(area), place: area ? [x / area, y / area] : outer[0] };
  });
  return { name, ...parts.reduce((best, one) => (one.size > best.size ? one : best)) };
}

async function drawCountries() {
  const { land, borders, names } = countries(await ask('/static/vendor/countries.json'));
  map.getSource('land').setData(land);
  map.getSource('borders').setData(borders);
  state.names = names;
  nameCountries();
}

function nameCountries() { // the largest first, where there is room
  const taken = [];
  const isShown = map.getZoom() < FADED_ZOOM;
  const [width, height] = [$('map').clientWidth, $('map').clientHeight];
  const labels = [];
  for (const { name, size, place } of isShown ? state.names : []) {
    const { x, y } = map.project(place);
    const [wide, tall] = [6.5 * name.length + 6, 16];
    const pixels = Math.sqrt(size) * (512 / 360) * 2 ** map.getZoom(); // a side of it
    const box = [x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2];
    const isOut = box[0] < 48 || box[1] < 40 || box[2] > width || box[3] > height - 40;
    const overlaps = taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
    if (pixels < wide / 2 || isOut || overlaps) continue;
    taken.push(box);
    const label = document.createElement('span');
    label.textContent = name;
    label.style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`;
    labels.push(label);
  }
  $('country-labels').replaceChildren(...labels);
}

function style() {
  const fading = (most) => ['interpolate', ['linear'], ['zoom'], FADED_ZOOM - 3, most, FADED_ZOOM, 0];
  const line = (id, source, paint, more = {}) => ({ id, source, type: 'line', paint, ...more });
  return {
    version: 8,
    sources: {
      land: { type: 'geojson', data: NOTHING, maxzoom: 8 },
      borders: { type: 'geojson', data: NOTHING, maxzoom: 8 },
      graticule: { type: 'geojson', data: NOTHING },
      tiles: { type: 'raster', tiles: [`${location.origin}/tiles/none/{z}/{x}/{y}.png`], tileSize: 256, maxzoom: 22 },
      outlines: { type: 'geojson', data: NOTHING },
      drawing: { type: 'geojson', data: NOTHING },
    },
    layers: [
      { id: 'ground', type: 'background', paint: { 'background-color': '#e7ebef' } },
      { id: 'land', type: 'fill', source: 'land', paint: { 'fill-color': '#f7f7f4', 'fill-opacity': fading(1), 'fill-antialias': false } },
      line('borders', 'borders', { 'line-color': '#a9b4bf', 'line-width': 0.8, 'line-opacity': fading(1) }),
      line('graticule', 'graticule', { 'line-color': '#c9d1d9', 'line-width': 1 }),
      { id: 'tiles', type: 'raster', source: 'tiles', layout: { visibility: 'none' }, paint: { 'raster-resampling': 'nearest', 'raster-fade-duration': 0 } },
      line('outline', 'outlines', { 'line-color': '#33475b', 'line-width': 1, 'line-opacity': 0.75 }),
      line('outline-chosen', 'outlines', { 'line-color': '#e07a00', 'line-width': 2.5 }, { filter: ['==', ['get', 'id'], ''] }),
      { id: 'drawing-fill', type: 'fill', source: 'drawing', filter: ['==', ['geometry-type'], 'Polygon'], paint: { 'fill-color': '#e07a00', 'fill-opacity': 0.15 } },
      line('drawing', 'drawing', { 'line-color': '#e07a00', 'line-width': 2 }),
      { id: 'drawing-point', type: 'circle', source: 'drawing', filter: ['==', ['geometry-type'], 'Point'], paint: { 'circle-radius': 5, 'circle-color': '#e07a00', 'circle-stroke-color': '#fff', 'circle-stroke-width': 2 } },
    ],
  };
}

async function tileError({ error }) {
  const body = await error?.body?.text?.().catch(() => '');
  let message = error?.message ?? 'map: expected an answer, got none';
  try {
    message = JSON.parse(body).error;
  } catch {
    // the browser's own words stand
  }
  complain(message);
}

const choose = latest(async (name) => {
  const found = await ask(`/api/collections/${encodeURIComponent(name)}`);
  return () => arrangeFor(found);
});

function arrangeFor(found) {
  Object.assign(state, { collection: found, isNew: true, days: [], day: null, limits: {}, chosen: null, facts: null });
  closeChart();
  const bands = Object.keys(found.bands);
  const options = (id, values, text = (value) => value) => $(id).replaceChildren(...values.map((value) => new Option(text(value), value)));
  const usual = found.default_bands;
  [1, 2, 3].forEach((n) => {
    options(`band-${n}`, bands);
    $(`band-${n}`).value = usual[Math.min(n, usual.length) - 1];
  });
  options('colormap', found.colormaps);
  options('method', found.methods, (value) => METHODS[value]);
  const has = (...names) => names.every((one) => bands.includes(one));
  const presets = [
    has('B04', 'B08') && ['NDVI', 'rasteret_ndvi(B04, B08)'],
    has('red', 'nir') && ['NDVI', 'rasteret_ndvi(red, nir)'],
    has('B03', 'B08') && ['NDWI', 'rasteret_normalized_difference(B03, B08)'],
    has('B04', 'B08', 'SCL') && ['NDVI without clouds', 'CASE WHEN rasteret_scl_clear(SCL) THEN rasteret_ndvi(B04, B08) END'],
  ].filter(Boolean);
  $('presets').replaceChildren(...presets.map(([label, text]) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = label;
    button.onclick = () => {
      $('expression').value = text;
      if ($('colormap').value === 'grey') $('colormap').value = 'rdylgn';
      arrange();
      changeLayer();
    };
    return button;
  }));
  $('expression').value = presets[0]?.[1] ?? bands[0];
  document.querySelector(`input[name=mode][value=${usual.length === 3 ? 'rgb' : 'band'}]`).checked = true;
  $('cloud-row').hidden = !(CLOUD in found.columns);
  $('cloud').value = 100;
  $('cloud-value').textContent = '≤ 100 %';
  $('from').value = $('to').value = '';
  $('from').placeholder = $('to').placeholder = 'YYYY-MM-DD';
  $('filters').replaceChildren();
  $('all-dates').checked = false;
  arrange();
  map.setLayoutProperty('tiles', 'visibility', 'none');
  const [west, south, east, north] = found.bounds ?? [-180, -60, 180, 75];
  map.fitBounds([[west, south], [east, north]], { padding: 50, maxZoom: 15, duration: 0 });
  findScenes();
}

function addFilter() {
  const row = document.createElement('div');
  row.className = 'filter';
  const column = row.appendChild(document.createElement('select'));
  column.setAttribute('aria-label', 'Column');
  column.replaceChildren(...Object.keys(state.collection.columns).map((name) => new Option(name, name)));
  const operator = row.appendChild(document.createElement('select'));
  operator.setAttribute('aria-label', 'Comparison');
  operator.replaceChildren(...['=', '<>', '<', '<=', '>', '>=', 'contains'].map((sign) => new Option(sign, sign)));
  const value = row.appendChild(document.createElement('input'));
  value.setAttribute('aria-label', 'Value');
  const remove = row.appendChild(document.createElement('button'));
  remove.type = 'button';
  remove.textContent = '×';
  remove.setAttribute('aria-label', 'Remove the filter');
  remove.onclick = () => {
    row.remove();
    changeFilter();
  };
  [column, operator, value].forEach((one) => one.addEventListener('change', changeFilter));
  $('filters').appendChild(row);
  value.focus();
}

function changeLayer() {
  arrange();
  drawTiles();
  document.querySelectorAll('#scenes li').forEach((item) => {
    item.querySelector('img').src = pictureUrl(item.dataset.id);
  });
  if (state.series) showSeries();
}

const changeFilter = soon(() => {
  complain();
  const wrong = ['from', 'to'].find((id) => !/^(\d{4}-\d{2}-\d{2})?$/.test($(id).value.trim()));
  if (wrong) return complain(`dates: expected YYYY-MM-DD, got ${$(wrong).value}`);
  $('cloud-value').textContent = `≤ ${$('cloud').value} %`;
  findScenes();
  drawTiles();
  if (state.series) showSeries();
  return undefined;
});

function listen() {
  $('collection').onchange = () => choose($('collection').value);
  document.querySelectorAll('input[name=mode]').forEach((one) => one.addEventListener('change', () => {
    if (mode() === 'expression' && $('colormap').value === 'grey') $('colormap').value = 'rdylgn';
    changeLayer();
  }));
  ['band-1', 'band-2', 'band-3', 'expression', 'colormap', 'method'].forEach((id) => $(id).addEventListener('change', changeLayer));
  $('expression').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      $('expression').blur();
    }
  });
  ['low', 'high'].forEach((id) => $(id).addEventListener('change', typeRange));
  $('fit').onclick = () => fit();
  $('opacity').oninput = () => map.setPaintProperty('tiles', 'raster-opacity', $('opacity').value / 100);
  $('outlines').onchange = () => ['outline', 'outline-chosen'].forEach((id) => map.setLayoutProperty(id, 'visibility', $('outlines').checked ? 'visible' : 'none'));
  ['from', 'to'].forEach((id) => $(id).addEventListener('change', changeFilter));
  $('cloud').oninput = changeFilter;
  $('add-filter').onclick = addFilter;
  $('previous').onclick = () => step(-1);
  $('next').onclick = () => step(1);
  $('play').onclick = play;
  $('all-dates').onchange = () => setDay($('all-dates').checked ? null : state.days.at(-1)?.[0] ?? null);
  const slider = $('slider');
  slider.onpointerdown = (event) => {
    slider.setPointerCapture(event.pointerId);
    pickDay(event);
  };
  slider.onpointermove = (event) => slider.hasPointerCapture(event.pointerId) && pickDay(event);
  slider.onkeydown = (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
    if (by) step(by);
  };
  $('draw').onclick = startDrawing;
  $('clear').onclick = closeChart;
  $('chart-close').onclick = closeChart;
  $('sql-button').onclick = () => {
    $('sql').hidden = !$('sql').hidden;
    $('sql-button').setAttribute('aria-expanded', String(!$('sql').hidden));
    if (!$('sql').hidden) showSql();
  };
  $('error').lastElementChild.onclick = () => complain();
  addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && state.corners) stopDrawing();
    if (event.key === 'Enter' && state.corners?.length) finishDrawing();
  });
  addEventListener('resize', drawTime);
  const above = () => $('sql').style.setProperty('--chart', `${$('chart').offsetHeight}px`); // so ends the SQL
  new ResizeObserver(above).observe($('chart'));
  map.on('click', clickMap);
  map.on('dblclick', () => state.corners && finishDrawing());
  map.on('mousemove', ({ lngLat }) => {
    const { lng, lat } = lngLat.wrap();
    $('where-am-i').textContent = `${lng.toFixed(4)}, ${lat.toFixed(4)}`;
    if (state.corners?.length) drawCorners([lngLat.lng, lngLat.lat]);
  });
  for (const event of ['move', 'resize']) {
    map.on(event, graticule);
    map.on(event, nameCountries);
  }
  map.on('moveend', soon(() => {
    findScenes();
    if (!$('sql').hidden) showSql();
  }, 150));
  map.on('error', tileError);
  map.on('idle', () => { document.body.dataset.idle = 'yes'; });
  map.on('dataloading', () => { document.body.dataset.idle = 'no'; });
}

async function start() {
  try {
    const names = (await ask('/api/collections')).collections;
    map = new maplibre.Map({
      container: 'map', style: style(), attributionControl: false, dragRotate: false, pitchWithRotate: false,
      touchPitch: false, renderWorldCopies: true, maxZoom: 21, fadeDuration: 0,
    });
    map.addControl(new maplibre.NavigationControl({ showCompass: false }), 'top-right');
    map.addControl(new maplibre.ScaleControl({ maxWidth: 110 }), 'bottom-right');
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    await map.once('load');
    $('collection').replaceChildren(...names.map((name) => new Option(name, name)));
    listen();
    hint();
    graticule();
    drawCountries().catch((error) => complain(error.message));
    await choose(names[0]);
    document.body.dataset.ready = 'yes';
  } catch (error) {
    complain(error.message);
  }
}

start();
