// The packed data (assay.report.page.data) and a view of one cell of it.

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;.=>?@^_`{|}~";

// Base 85: four bytes for five digits. What fills up the last five is cut off again.
function bytes(text) {
  const values = new Uint8Array(128), full = Math.ceil(text.length / 5);
  for (const [value, digit] of [...DIGITS].entries()) values[digit.charCodeAt(0)] = value;
  const filled = text.padEnd(5 * full, "~"), found = new DataView(new ArrayBuffer(4 * full));
  for (let at = 0; at < full; at++) {
    let word = 0;
    for (let digit = 5 * at; digit < 5 * at + 5; digit++) word = 85 * word + values[filled.charCodeAt(digit)];
    found.setUint32(4 * at, word);
  }
  return new Uint8Array(found.buffer, 0, 4 * full - (filled.length - text.length));
}

async function unpack(text) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

class Cells {
  constructor(index) {
    this.data = index;
    this.complete = false;
    this.byAddress = new Map(index.cells.address.map((address, at) => [address, at]));
    this.columns = [...new Set(index.cells.backend)];
    this.read = new Map();
  }

  // The evidence follows the index: until then the page filters and searches, and opens nothing.
  add({ cells, lists, samples }) {
    Object.assign(this.data.cells, cells);
    Object.assign(this.data, { lists, samples });
    this.complete = true;
  }

  at(index) {
    if (!this.read.has(index)) this.read.set(index, { ...this.known(index), ...this.evidence(index) });
    return this.read.get(index);
  }

  // A link made for another merge: weights or a session may have been added to the address since, or have gone.
  find(address) {
    for (let wanted = address; wanted.split("/").length >= 4; wanted = wanted.slice(0, wanted.lastIndexOf("/"))) {
      if (this.byAddress.has(wanted)) return this.byAddress.get(wanted);
      const longer = this.data.cells.address.findIndex((each) => each.startsWith(`${wanted}/`));
      if (longer >= 0) return longer;
    }
    return null;
  }

  known(index) {
    const { cells, tables, rows } = this.data;
    return {
      index,
      address: cells.address[index],
      backend: cells.backend[index],
      size: cells.size[index],
      precision: cells.precision[index],
      device: cells.device?.[index],
      status: cells.status[index],
      baseline: cells.baseline?.[index] ?? null,
      lookedFor: cells.looked_for?.[index] ?? [],
      row: rows[cells.row[index]],
      reason: tables.texts[cells.reason[index]],
      session: tables.sessions[cells.session?.[index]],
      checkpoint: tables.checkpoints[cells.checkpoint?.[index]],
    };
  }

  evidence(index) {
    const { cells, lists, samples, tables } = this.data;
    const { numbers, sentences, figures, counts, times: seconds, heights } = Object.fromEntries(
      Object.entries(lists).map(([key, columns]) => [key, columns.map((column) => column[index])]));
    return {
      started: cells.started?.[index],
      seconds: cells.seconds?.[index] ?? null,
      failure: cells.failure?.[index] ?? null,
      diagnosis: cells.diagnosis?.[index] ?? null,
      transcript: cells.transcript?.[index] ?? null,
      samples: Object.fromEntries(Object.entries(samples).filter(([, column]) => column[index]).map(([name, column]) => [name, column[index]])),
      curves: curvesOf(tables.curves[cells.curves?.[index]] ?? [], heights ?? []),
      notes: (cells.notes?.[index] ?? []).map((each) => tables.texts[each]),
      commands: cells.commands[index].map(([what, command]) => [tables.texts[what], command]),
      workloads: tables.workloads[cells.workloads[index]],
      open: Object.fromEntries(Object.entries(cells.open?.[index] ?? {}).map(([layer, text]) => [layer, tables.texts[text]])),
      phases: tables.phases[cells.phases[index]].map(([role, name], at) => ({ role, name, seconds: seconds[at] })),
      checks: tables.checks[cells.checks[index]].map(([layer, name, sense, consequence, verdict], at) => ({
        layer, name, sense, consequence, verdict,
        value: numbers[2 * at], bound: numbers[2 * at + 1], text: sentences[at],
      })),
      metrics: new Map(tables.metrics[cells.metrics[index]].map(([name, unit, better, stable], at) => [name, {
        name, unit, better, stable, value: figures[3 * at], low: figures[3 * at + 1], high: figures[3 * at + 2],
        samples: counts[at],
      }])),
    };
  }

  // How many times better than the comparable cell of the CPU column; null where there is none.
  gain(cell, metric) {
    const its = cell.baseline === null ? null : this.at(cell.baseline).metrics.get(metric.name);
    if (!its || its.unit !== metric.unit || metric.better === "neither" || !metric.value || !its.value) return null;
    return metric.better === "lower" ? its.value / metric.value : metric.value / its.value;
  }
}

// Each curve with its points; the heights of all stand one after the other.
function curvesOf(kinds, heights) {
  let at = 0;
  return kinds.map(([name, axis, unit, sizes]) => {
    const points = sizes.map((size, place) => [size, heights[at + place]]);
    at += sizes.length;
    return { name, axis, unit, points };
  });
}
