// Filters, columns, order and arrow keys of the status table, which the file already holds. Rows that the filters leave
// out are taken out of the document, and of very many only the first stand in it until more are asked for.

const ROWS_SHOWN = 200;

class StatusTable {
  constructor(section, cells) {
    this.cells = cells;
    this.table = section.querySelector("table");
    this.nothing = section.querySelector("#nothing");
    this.more = section.querySelector("#more");
    this.columns = [...this.table.querySelectorAll("thead [data-column]")];
    this.groups = [...this.table.tBodies].map((body) => ({ body, heading: body.querySelector(".group") }));
    const written = [...this.table.querySelectorAll("tr.row")];
    this.rows = cells.data.rows.map((row, order) => ({ ...row, order, element: written[order] ?? null }));
    for (const { element } of this.rows) if (element) this.link(element);
    this.table.addEventListener("keydown", (event) => this.move(event));
    this.more.addEventListener("click", () => this.show(Infinity));
  }

  link(element) {
    for (const link of element.querySelectorAll("a")) link.href = `#cell=${tidy(this.cells.data.cells.address[link.dataset.cell])}`;
  }

  // A row that waits in the data becomes an element when it is first shown. Its HTML is the file's own, all text escaped.
  elementOf(entry) {
    if (!entry.element) {
      const { waiting, rows } = this.cells.data, template = document.createElement("template");
      template.innerHTML = waiting[entry.order - (rows.length - waiting.length)];
      entry.element = template.content.firstElementChild;
      this.link(entry.element);
    }
    return entry.element;
  }

  // What the search looks through: the row's names, and what its cells say of status, devices, machines and causes.
  textOf(entry) {
    entry.text ??= [entry.label, entry.model, ...entry.places.flat().map((index) => {
      const { backend, status, device, session, reason, checkpoint, lookedFor } = this.cells.known(index);
      return [backend, status, device, session?.machine.name, session?.id, reason, checkpoint?.name, checkpoint?.sha256, ...lookedFor].join(" ");
    })].join(" ").toLowerCase();
    return entry.text;
  }

  apply({ view, q, status, hide, sort }) {
    const wanted = q.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = view && view !== "all" ? view : null;
    const statuses = this.cells.data.cells.status;
    const matches = (index) => !status.length || status.includes(statuses[index]);
    this.shown = this.columns.map((head) => !hide.includes(head.dataset.column));
    this.matches = matches;
    this.left = this.rows.filter((entry) => {
      entry.found = entry.places.flatMap((found, at) => (this.shown[at] ? found.filter(matches) : []));
      return entry.found.length && (!kind || entry.kind === kind) && wanted.every((word) => this.textOf(entry).includes(word));
    });
    this.sort(sort);
    this.show(ROWS_SHOWN);
    return this.visible().length;
  }

  sort(sort) {
    const column = sort.replace(/^-/, ""), slowest = sort.startsWith("-");
    const at = this.columns.findIndex((head) => head.dataset.column === column);
    for (const [number, head] of this.columns.entries()) head.setAttribute("aria-sort", number !== at ? "none" : slowest ? "descending" : "ascending");
    if (at < 0 || !this.cells.complete) return;
    const key = ({ places }) => {
      const value = places[at].length && this.cells.at(places[at][0]).metrics.get("latency")?.value;
      return value ? (slowest ? -value : value) : Infinity;
    };
    const keys = new Map(this.left.map((entry) => [entry, key(entry)]));
    this.left.sort((me, it) => (keys.get(me) === keys.get(it) ? me.order - it.order : keys.get(me) - keys.get(it)));
  }

  show(most) {
    const some = this.left.slice(0, most);
    for (const [number, { body, heading }] of this.groups.entries()) {
      const mine = some.filter(({ group }) => group === number).map((entry) => this.elementOf(entry));
      body.replaceChildren(...(mine.length && heading ? [heading] : []), ...mine);
      for (const element of mine) this.adapt(element);
    }
    for (const [at, head] of this.columns.entries()) head.hidden = !this.shown[at];
    this.nothing.hidden = this.left.length > 0;
    this.more.hidden = this.left.length <= most;
    this.more.textContent = `Show all ${this.left.length.toLocaleString("en-US")} rows`;
  }

  adapt(element) {
    for (const [at, shown] of this.shown.entries()) {
      const place = element.cells[at + 1];
      place.hidden = !shown;
      for (const link of place.children) link.toggleAttribute("data-dim", !this.matches(link.dataset.cell));
    }
  }

  // The cells that the filters leave, in order, whether their rows are in the document yet or not.
  visible() {
    return this.left.flatMap(({ found }) => found);
  }

  move(event) {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const place = event.target.closest("td");
    if (!step || !place || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const rows = [...this.table.querySelectorAll("tr.row")];
    const along = (row) => [...row.cells].filter((cell) => !cell.hidden);
    const row = rows[rows.indexOf(place.parentElement) + step[0]];
    if (row) along(row)[along(place.parentElement).indexOf(place) + step[1]]?.querySelector("a")?.focus();
  }
}
