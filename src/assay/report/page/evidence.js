// What a cell opens to.

const MARKS = { passed: "✔", failed: "✘", not_judged: "?" };

class EvidencePanel {
  constructor(dialog, cells, close) {
    Object.assign(this, { dialog, cells });
    dialog.addEventListener("close", close);
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  // Neighbours are the cells before and after this one among those that the filters left.
  show(index, neighbours, open) {
    const cell = this.cells.at(index);
    this.dialog.replaceChildren(make("article", {},
      this.head(cell, neighbours, open),
      cell.failure ? failure(cell) : null,
      cell.lookedFor.length ? section("Looked for", make("ul", {}, cell.lookedFor.map((what) => make("li", {}, what)))) : null,
      this.layers(cell),
      cell.diagnosis ? diagnosis(cell.diagnosis) : null,
      cell.transcript === null ? null : section("Transcript", make("p", { class: "note" }, "What it wrote for one of the inputs:"), make("pre", { tabindex: 0, "aria-label": "Transcript" }, cell.transcript)),
      this.metrics(cell),
      this.samples(cell),
      growth(cell, this.cells),
      phases(cell),
      reproduce(cell),
      setting(cell)));
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.scrollTop = 0;
    this.dialog.querySelector("h2").focus();
  }

  head(cell, neighbours, open) {
    const step = (to, text, arrow) => make("button", { type: "button", class: "plain", disabled: to === undefined, "aria-label": text, title: text, onclick: () => open(to) }, arrow);
    return make("header", {},
      make("div", { class: "bar" },
        step(neighbours[0], "Previous cell", "↑"), step(neighbours[1], "Next cell", "↓"),
        copyButton("Copy link", () => location.href),
        make("button", { type: "button", class: "plain close", onclick: () => this.dialog.close() }, "Close")),
      make("h2", { id: "evidence-title", tabindex: -1 }, `${cell.row.title} on ${cell.backend} `, status(cell.status, this.cells)),
      make("p", { class: "what" }, [cell.size, cell.precision, cell.device, cell.session?.machine.name, cell.started?.slice(0, 16).replace("T", " ")].filter(Boolean).join(" · ")),
      make("p", { class: "reason" }, sentence(cell.reason)),
      cell.status === "REAL" ? null : make("p", { class: "note" }, sentence(this.cells.data.statuses[cell.status][1])));
  }

  layers(cell) {
    if (!cell.checks.length && !Object.keys(cell.open).length) return null;
    const rows = this.cells.data.layers.map(([layer, required]) => {
      const checks = cell.checks.filter((check) => check.layer === layer);
      const verdicts = checks.map((check) => check.verdict);
      const verdict = verdicts.includes("failed") ? "failed" : !checks.length || cell.open[layer] || verdicts.includes("not_judged") ? "not_judged" : "passed";
      return make("tbody", {},
        make("tr", { class: "layer" }, make("th", { colspan: 3, scope: "rowgroup" },
          make("b", { class: verdict }, MARKS[verdict]), ` ${layer} `, make("span", { class: `verdict ${verdict}` }, words(verdict)),
          required ? null : make("span", { class: "note" }, " REAL does not need it, as long as it has not failed"),
          cell.open[layer] ? make("p", {}, sentence(cell.open[layer])) : null)),
        checks.map((check) => make("tr", {},
          make("th", { scope: "row" }, make("b", { class: check.verdict }, MARKS[check.verdict]), ` ${words(check.name)}`, make("small", {}, sentence(check.text))),
          make("td", { class: "numbers" }, bounds(check), check.verdict === "failed" ? make("strong", { class: check.consequence }, `→ ${check.consequence}`) : null),
          make("td", { class: "scale" }, checkChart(check)))));
    });
    return section("Evidence", make("table", { class: "checks" },
      make("caption", { class: "unseen" }, "Every check with its number and its bound, by layer"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Check"), make("th", { scope: "col" }, "Found, bound"), make("th", { scope: "col", class: "scale" }, checkAxis()))),
      rows));
  }

  metrics(cell) {
    if (!cell.metrics.size) return null;
    const rows = [...cell.metrics.values()].map((metric) => {
      const gain = this.cells.gain(cell, metric);
      return make("tr", {},
        make("th", { scope: "row" }, words(metric.name)),
        make("td", { class: "figure" }, metric.stable ? null : make("abbr", { title: "did not settle" }, "~"), quantity(metric.value, metric.unit)),
        make("td", {}, interval(metric)),
        make("td", {}, metric.samples.toLocaleString("en-US")),
        make("td", {}, gain === null ? "" : times(gain)));
    });
    const against = cell.baseline === null ? "" : "× better than cpu";
    return section("Metrics", make("table", { class: "plain numeric" },
      make("caption", { class: "unseen" }, "Metrics"),
      make("thead", {}, make("tr", {}, ["Metric", "Median", "95 % interval", "Samples", against].map((head) => head ? make("th", { scope: "col" }, head) : make("td", {})))),
      make("tbody", {}, rows)));
  }

  samples(cell) {
    const names = Object.keys(cell.samples);
    if (!names.length) return null;
    return section("Samples", make("div", { class: "pair" }, names.map((name) => {
      const [drawn, share] = distribution(this.cells.data.steps, cell.samples[name], cell.metrics.get(name));
      return make("figure", {}, make("figcaption", {}, words(name), make("span", { class: "note" }, ` ${share}; line: median, band: its 95 % interval; log scale`)), drawn);
    })));
  }
}

function section(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}

function status(name, cells) {
  return make("span", { class: `status ${name}` }, make("b", {}, cells.data.statuses[name][0]), ` ${name}`);
}

function sentence(text) {
  return text && text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function bounds(check) {
  if (check.value === null || check.bound === null) return "no number";
  const kept = check.verdict === "passed";
  const relation = check.sense === "at_most" ? (kept ? "≤" : ">") : kept ? "≥" : "<";
  return `${number(check.value)} ${relation} ${number(check.bound)}`;
}

function interval(metric) {
  if (metric.low === null || metric.high === null) return "";
  return `${quantity(metric.low, metric.unit)} – ${quantity(metric.high, metric.unit)}`;
}

function failure(cell) {
  const { role, phase, reason, log } = cell.failure;
  return section("Failure",
    make("p", {}, `The ${role} ended in its phase “${phase}”: ${sentence(reason)}`),
    log ? [make("p", { class: "note" }, "The end of its log:"), make("pre", { tabindex: 0, "aria-label": "Log" }, log)] : null);
}

function diagnosis({ text, not_examined: notExamined, checks }) {
  const rows = checks.map((check) => make("tr", {},
    make("th", { scope: "row" }, make("b", { class: check.verdict }, MARKS[check.verdict]), ` ${check.name}`, make("small", {}, sentence(check.text))),
    make("td", { class: "numbers" }, bounds(check)),
    make("td", { class: "scale" }, checkChart(check))));
  return section("Which stage is guilty", make("p", {}, sentence(text)),
    notExamined ? make("p", { class: "note" }, `Not examined: ${sentence(notExamined)}`) : null,
    make("table", { class: "checks" },
      make("caption", { class: "unseen" }, "The error after each stage from torch to the runtime"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Stage"), make("th", { scope: "col" }, "Error, bound"), make("th", { scope: "col", class: "scale" }, checkAxis()))),
      make("tbody", {}, rows)));
}

function growth(cell, cells) {
  if (!cell.curves.length) return null;
  return section("Scaling", make("div", { class: "pair" }, cell.curves.map((curve) => make("figure", {},
    make("figcaption", {}, `${curve.name} by ${curve.axis}`, make("span", { class: "note" }, " both scales are logarithmic")),
    curveChart([[cells.columns.indexOf(cell.backend), cell.backend, curve]]),
    make("table", { class: "plain numeric" },
      make("caption", { class: "unseen" }, `${curve.name} by ${curve.axis}`),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, curve.axis), curve.points.map(([size]) => make("th", { scope: "col" }, String(size))))),
      make("tbody", {}, make("tr", {}, make("th", { scope: "row" }, curve.unit === "s" ? "time" : curve.unit), curve.points.map(([, value]) => make("td", {}, point(value, curve.unit))))))))));
}

function phases(cell) {
  if (!cell.phases.length) return null;
  const longest = d3.max(cell.phases, (each) => each.seconds) || 1;
  let before = "";
  const rows = cell.phases.map(({ role, name, seconds }) => {
    const shown = role === before ? make("span", { class: "unseen" }, role) : role;
    before = role;
    return make("tr", {}, make("th", { scope: "row" }, shown), make("td", {}, name), make("td", { class: "figure" }, quantity(seconds, "s", 2)), make("td", { class: "wide" }, phaseBar(seconds, longest, role)));
  });
  const total = cell.seconds === null || cell.seconds === undefined ? "" : ` (${quantity(cell.seconds, "s")} in all)`;
  return section(`Phases${total}`, make("table", { class: "plain phases" },
    make("caption", { class: "unseen" }, "Seconds of each phase"),
    make("thead", {}, make("tr", {}, ["Role", "Phase", "Time", ""].map((head) => head ? make("th", { scope: "col", class: head === "Time" && "figure" }, head) : make("td", {})))),
    make("tbody", {}, rows)));
}

function reproduce(cell) {
  return section("Reproduce", cell.commands.map(([what, command]) => make("div", { class: "command" },
    make("span", {}, what), make("code", { tabindex: 0 }, command), copyButton("Copy", () => command))));
}

// The clipboard is closed to pages from file:// in some browsers; the old way is open there.
function copyButton(name, text) {
  const button = make("button", { type: "button", class: "plain" }, name);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      const area = make("textarea", { readonly: true });
      area.value = text();
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    announce("Copied");
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = name; }, 1500);
  });
  return button;
}

function setting(cell) {
  const { checkpoint, session } = cell;
  const facts = [];
  if (checkpoint) {
    facts.push(["Checkpoint", checkpoint.name + (checkpoint.revision ? `@${checkpoint.revision}` : ""), checkpoint.source]);
    facts.push(["SHA-256", make("code", {}, checkpoint.sha256)]);
  }
  if (cell.workloads.length) facts.push(["Workloads", cell.workloads.map(workload).join("; ")]);
  if (session) {
    const { machine, environment } = session;
    const memory = quantity(machine.memory, "B");
    facts.push(["Machine", [machine.name, machine.processor, `${machine.cores} cores`, memory, machine.system, ...(machine.devices ?? [])].join(", ")]);
    facts.push(["Software", [`assay ${environment.assay}`, `Python ${environment.python}`, ...Object.entries(environment.packages ?? {}).sort().map(([name, version]) => `${name} ${version}`)].join(", ")]);
    facts.push(["Threads", environment.threads]);
    facts.push(["Session", session.id, session.started_at.slice(0, 19).replace("T", " ")]);
  }
  facts.push(...cell.notes.map((note) => ["Note", sentence(note)]));
  if (!facts.length) return null;
  return section("Environment", make("dl", { class: "facts" }, facts.map(([name, ...parts]) => make("div", {}, make("dt", {}, name), make("dd", {}, parts.flatMap((part, at) => (at ? [", ", part] : [part])))))));
}

function workload(each) {
  const sizes = Object.entries(each).filter(([key]) => key !== "name").map(([key, value]) => (value === true ? key : `${words(key)} ${value}`));
  return `${each.name}${sizes.length ? ` (${sizes.join(", ")})` : ""}`;
}
