// Marks on d3's scales. Positions are percentages, so that a chart is as wide as its place, on paper too.

function chart(height, label, ...marks) {
  const told = label ? { role: "img", "aria-label": label } : { "aria-hidden": true };
  return make("svg:svg", { class: "chart", width: "100%", height, ...told }, ...marks);
}

function line(x1, x2, y1, y2, name) {
  return make("svg:line", { x1: `${x1}%`, x2: `${x2}%`, y1, y2, class: name });
}

function dot(x, y, radius, name) {
  return make("svg:circle", { cx: `${x}%`, cy: y, r: radius, class: name });
}

function label(x, y, text, name = "") {
  const anchor = x < 6 ? "start" : x > 94 ? "end" : "middle";
  return make("svg:text", { x: `${x}%`, y, "text-anchor": anchor, class: name }, text);
}

// A check on the scale that all checks share: how many times the bound, worse to the right. What has no such ratio
// (a count of 0, at most 0) stands at the end where it belongs.
const REACH = 1000;
const margin = d3.scaleLog([1 / REACH, REACH], [4, 96]).clamp(true);

function ratio(check) {
  const [over, under] = check.sense === "at_most" ? [check.value, check.bound] : [check.bound, check.value];
  if (over > 0 && under > 0) return over / under;
  return check.verdict === "passed" ? 0 : Infinity;
}

function checkChart(check) {
  if (check.value === null || check.bound === null) return null;
  const found = ratio(check);
  const at = margin(Math.min(Math.max(found, 1 / REACH), REACH));
  const beyond = found < 1 / REACH || found > REACH;
  const side = found < 1 ? "◂" : "▸";
  return chart(20, `${number(check.value)}, ${words(check.sense)} ${number(check.bound)}`,
    make("svg:rect", { x: "0%", width: "50%", y: 3, height: 14, class: "within" }),
    make("svg:rect", { x: "50%", width: "50%", y: 3, height: 14, class: "beyond" }),
    line(0, 100, 10, 10, "axis"),
    line(50, 50, 1, 19, "bound"),
    beyond ? label(at, 14.5, side, `mark ${check.verdict}`) : [line(at, 50, 10, 10, `stem ${check.verdict}`), dot(at, 10, 4.5, `mark ${check.verdict}`)]);
}

function checkAxis() {
  return chart(16, "Scale: times the bound, from a thousandth to a thousand times",
    [[1 / REACH, "1/1000"], [0.03, "← within"], [1, "bound"], [30, "beyond →"], [REACH, "1000×"]].map(([at, text]) => label(margin(at), 12, text)));
}

// Each dot an equal share of the samples; dots that would cover each other are stacked.
function distribution(steps, packed, metric) {
  const [count, low, high, ...moves] = packed;
  const places = d3.cumsum(moves);
  const across = high > low ? (value) => 3 + 94 * Math.log(value / low) / Math.log(high / low) : () => 50;
  const x = (place) => (high > low ? 3 + (94 * place) / steps : 50);
  const bins = d3.bin().domain([0, steps]).thresholds(44)(places).filter((bin) => bin.length);
  const tallest = d3.max(bins, (bin) => bin.length) ?? 1;
  const radius = Math.min(3.5, 28 / tallest), base = 8 + tallest * 2 * radius;
  const ticks = high > low ? spaced(d3.scaleLog([low, high], [3, 97]), 5) : [low];
  const inside = (value) => value !== null && value !== undefined && value >= low && value <= high;
  const interval = metric && inside(metric.low) && inside(metric.high);
  const share = moves.length < count ? `each dot ${d3.format(".0%")(1 / moves.length)} of ${count.toLocaleString("en-US")} samples` : `${count} samples`;
  return [
    chart(base + 20, `Distribution of ${share}, from ${quantity(low, "s")} to ${quantity(high, "s")}`,
      interval ? make("svg:rect", { x: `${across(metric.low)}%`, width: `${Math.max(0.3, across(metric.high) - across(metric.low))}%`, y: 2, height: base - 2, class: "interval" }) : null,
      metric && inside(metric.value) ? line(across(metric.value), across(metric.value), 2, base, "median") : null,
      bins.map((bin) => bin.map((_, at) => dot(x(d3.mean(bin)), base - radius * (2 * at + 1), radius * 0.92, "sample"))),
      line(0, 100, base, base, "axis"),
      ticks.map((tick) => [line(across(tick), across(tick), base, base + 4, "axis"), label(across(tick), base + 16, tickText(tick, "s"))])),
    share,
  ];
}

// Round values that leave room for their labels, and the scale's ends where there would be fewer than two.
function spaced(scale, most, unit = "s") {
  const round = unit === "B" ? 2 ** (10 * Math.floor(Math.log2(scale.domain()[1]) / 10)) : 1;
  const [low, high] = scale.domain().map((end) => end / round);
  const ticks = high / low < 3 ? d3.ticks(low, high, most - 1) : d3.scaleLog([low, high], [0, 1]).ticks(most);
  const kept = [];
  for (const tick of ticks.map((each) => each * round)) {
    if (!kept.length || scale(tick) - scale(kept.at(-1)) >= 90 / most) kept.push(tick);
  }
  return kept.length >= 2 ? kept : scale.domain();
}

function tickText(value, unit) {
  const text = ownUnit(unit) ? number(value) : quantity(value, unit);
  return text.replace(/(\.\d*?)0+(?=$| )/, "$1").replace(/\.(?=$| )/, "");
}

// A mark's shape and hue tell its column: either alone would do. Six, then again from the first.
const SHAPES = ["M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0", "M-4,-4h8v8h-8z", "M0,-5L5,4H-5z", "M0,-5.6L5.6,0L0,5.6L-5.6,0z", "M0,5L5,-4H-5z", "M-5,-1.7h3.3v-3.3h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3z"];

function shape(column, hollow) {
  const at = column % SHAPES.length;
  return make("svg:path", { d: SHAPES[at], class: `shape column${at}${hollow ? " hollow" : ""}` });
}

function sign(column) {
  return make("svg:svg", { class: "chart sign", width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": true }, shape(column, false));
}

function figureMark(scale, metric, column, real) {
  const spread = metric.low > 0 && metric.high > 0;
  return [
    spread ? line(scale(metric.low), scale(metric.high), 11, 11, `spread column${column % SHAPES.length}`) : null,
    make("svg:svg", { x: `${scale(metric.value)}%`, y: 11, overflow: "visible" }, shape(column, !real)),
  ];
}

function figureLine(scale, marks) {
  return chart(22, "", line(0, 100, 11, 11, "axis"), scale.marks.map((tick) => line(scale(tick), scale(tick), 0, 22, "grid")), marks);
}

function figureScale(metrics, unit) {
  const values = metrics.flatMap((each) => [each.low, each.value, each.high]).filter((value) => value > 0);
  const [low, high] = d3.extent(values);
  const scale = d3.scaleLog([low / 1.15, high * 1.15], [2, 98]);
  scale.marks = spaced(scale, 5, unit);
  return scale;
}

// Lines over what grew, each with the marks of its column: [column, name, curve] for each.
function curveChart(curves) {
  const points = curves.flatMap(([, , curve]) => curve.points), { axis, unit } = curves[0][2];
  const sizes = [...new Set(points.map(([size]) => size))].sort(d3.ascending);
  const x = d3.scaleLog(d3.extent(sizes), [14, 97]);
  const [low, high] = d3.extent(points, ([, value]) => value);
  const y = d3.scaleLog([low / 1.1, high * 1.1], [116, 10]);
  const ticks = spaced(d3.scaleLog([low / 1.1, high * 1.1], [0, 100]), 4, unit);
  const told = curves.map(([, name, curve]) => `${name}: ${curve.points.map(([size, value]) => `${size}: ${point(value, unit)}`).join(", ")}`);
  return chart(150, `By ${axis}, ${ownUnit(unit) ? unit : "time"}: ${told.join("; ")}`,
    ticks.map((tick) => [line(0, 97, y(tick), y(tick), "grid"), label(0, y(tick) - 2, tickText(tick, unit))]),
    spacedSizes(sizes, x).map((size) => label(x(size), 134, String(size))),
    label(97, 148, axis),
    curves.map(([column, , curve]) => [
      d3.pairs(curve.points).map(([[from, start], [to, end]]) => line(x(from), x(to), y(start), y(end), `curve column${column % SHAPES.length}`)),
      curve.points.map(([size, value]) => make("svg:svg", { x: `${x(size)}%`, y: y(value), overflow: "visible" }, shape(column, false)))]));
}

function spacedSizes(sizes, x) {
  const kept = [];
  for (const size of sizes) if (!kept.length || x(size) - x(kept.at(-1)) >= 9) kept.push(size);
  return kept;
}

function phaseBar(seconds, longest, role) {
  return chart(12, "", make("svg:rect", { x: 0, y: 1, height: 10, width: `${Math.max(0.4, (100 * seconds) / longest)}%`, rx: 2, class: `phase ${role}` }));
}
