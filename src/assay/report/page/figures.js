// The views by kind of family: a table for each metric of it.

const ROWS_AT_FIRST = 30;
// What every cell has, first; each kind's own figures follow in the order of the reports.
const COMMON = ["latency", "throughput", "model_flops_utilization", "model_bandwidth_utilization", "peak_memory", "unique_memory", "preprocessing_time", "first_inference_time", "load_time", "compile_time", "export_time"];

// And what explains the others, last.
const BACKGROUND = ["load_peak_memory", "compile_peak_memory", "inference_peak_memory", "proportional_memory", "mapped_weights", "throughput_batch", "knee_batch", "operations", "bytes_per_step", "harness_time"];

function drawFigures(place, cells, indices, heading, own) {
  const columns = [...new Set(indices.map((index) => cells.at(index).backend))].sort((a, b) => cells.columns.indexOf(a) - cells.columns.indexOf(b));
  const found = new Map();
  for (const index of new Set(indices)) {
    const cell = cells.at(index);
    for (const metric of cell.metrics.values()) {
      const key = `${metric.name} ${metric.unit}`;
      if (!found.has(key)) found.set(key, []);
      found.get(key).push([cell, metric]);
    }
  }
  const order = [...COMMON, ...BACKGROUND];
  const rank = ([[, [[, metric]]]]) => order.indexOf(metric.name);
  const groups = [...found].filter(([, [[, metric]]]) => own || COMMON.includes(metric.name));
  const mine = groups.filter((group) => rank([group]) < 0);
  const common = groups.filter((group) => rank([group]) >= 0).sort((a, b) => rank([a]) - rank([b]));
  place.replaceChildren(
    make("h2", {}, heading),
    make("p", { class: "note" }, "Medians with their 95 % intervals, on a log scale for each metric. × says how many times better than cpu: only for cells that are REAL, of the same checkpoint, precision and workloads, measured on the same machine with as many threads. ~ did not settle; a hollow mark is of a cell that is not REAL."),
    ...(own ? curveCards(cells, indices) : []),
    groups.length ? make("div", { class: "cards" }, [...mine, ...common].map(([, entries]) => card(cells, columns.filter((column) => entries.some(([cell]) => cell.backend === column)), entries))) : make("p", {}, "Nothing was measured in the cells that the filters leave."));
}

// Throughput over the batch size and time over the length: a chart for each row, a line for each column.
function curveCards(cells, indices) {
  const rows = d3.group([...new Set(indices)].map((index) => cells.at(index)).filter((cell) => cell.curves.length), (cell) => cell.row);
  if (!rows.size) return [];
  const cards = [...rows].slice(0, ROWS_AT_FIRST).flatMap(([row, members]) => {
    const named = d3.group(members.flatMap((cell) => cell.curves.map((curve) => [cell, curve])), ([, curve]) => `${curve.name} by ${curve.axis}`);
    return [...named].map(([name, found]) => make("figure", {},
      make("figcaption", {}, `${row.label.startsWith(row.title) && row.model ? `${row.title}, ${row.model}` : row.title}: ${name}`,
        make("span", { class: "note" }, ` ${found[0][1].unit === "s" ? "lower" : `${found[0][1].unit}, higher`} is better; both scales are logarithmic`)),
      curveChart(found.map(([cell, curve]) => [cells.columns.indexOf(cell.backend), cell.backend, curve])),
      make("p", { class: "note" }, found.map(([cell]) => make("a", { href: `#cell=${tidy(cell.address)}` }, sign(cells.columns.indexOf(cell.backend)), ` ${cell.backend} `)))));
  });
  return [make("div", { class: "curves pair" }, cards)];
}

// A line for each row of the matrix: all columns' marks on one scale, and their figures beside it.
function card(cells, columns, entries) {
  const [, { name, unit, better }] = entries[0];
  const metrics = entries.map(([, metric]) => metric);
  const scale = metrics.some((metric) => metric.value > 0) ? figureScale(metrics, unit) : null;
  const lines = d3.groups(entries, ([cell]) => cell.row);
  const body = make("tbody");
  const heads = columns.map((column) => make("th", { scope: "col", class: "figure" }, sign(cells.columns.indexOf(column)), ` ${column}`));
  const element = make("section", { class: "card scroll", role: "region", tabindex: 0, "aria-label": words(name) },
    make("table", {},
      make("caption", {}, words(name), " ", make("span", { class: "note" }, [ownUnit(unit) ? unit : "", { lower: "lower is better", higher: "higher is better", neither: "" }[better]].filter(Boolean).join(", "))),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", { class: "unseen" }, "Family")),
        make("td", { class: "scale" }, scale ? chart(16, "", scale.marks.map((tick) => label(scale(tick), 12, tickText(tick, unit)))) : null), heads)),
      body));
  const draw = (some) => body.append(...some.map(([row, found]) => figureRow(cells, columns, row, found, scale)));
  draw(lines.slice(0, ROWS_AT_FIRST));
  if (lines.length > ROWS_AT_FIRST) {
    const rest = (event) => { event.target.remove(); draw(lines.slice(ROWS_AT_FIRST)); };
    element.append(make("button", { type: "button", class: "plain", onclick: rest }, `Show all ${lines.length.toLocaleString("en-US")}`));
  }
  return element;
}

function figureRow(cells, columns, row, found, scale) {
  const marks = found.filter(([, metric]) => metric.value > 0).map(([cell, metric]) => figureMark(scale, metric, cells.columns.indexOf(cell.backend), cell.status === "REAL"));
  return make("tr", {},
    make("th", { scope: "row" }, row.title, [row.model, row.part].filter(Boolean).map((more) => make("small", {}, more))),
    make("td", { class: "scale" }, marks.length ? figureLine(scale, marks) : null),
    columns.map((column) => make("td", { class: "figure" }, found.filter(([cell]) => cell.backend === column).map(([cell, metric]) => figureOf(cells, cell, metric)))));
}

function figureOf(cells, cell, metric) {
  const gain = cells.gain(cell, metric);
  return make("div", {},
    make("a", { href: `#cell=${tidy(cell.address)}`, title: interval(metric) || null }, metric.stable ? "" : "~", ownUnit(metric.unit) ? number(metric.value) : quantity(metric.value, metric.unit)),
    " ",
    make("small", {}, cell.status === "REAL" ? (gain === null ? "" : times(gain)) : cell.status));
}
