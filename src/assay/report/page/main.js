// The address says what is shown: #view=text&q=bert&status=FAILED,MOCK&hide=cuda&sort=-cpu&cell=bert/cpu/tiny/f32

const page = (id) => document.getElementById(id);

// Addresses hold slashes and commas, which need no escape behind a #.
function tidy(text) {
  return encodeURIComponent(text).replaceAll("%2F", "/").replaceAll("%2C", ",");
}

function readAddress() {
  const found = new URLSearchParams(location.hash.slice(1));
  const list = (name) => (found.get(name) ?? "").split(",").filter(Boolean);
  return { view: found.get("view") ?? "", q: found.get("q") ?? "", status: list("status"), hide: list("hide"), sort: found.get("sort") ?? "", cell: found.get("cell") ?? "" };
}

function toAddress(state) {
  const parts = Object.entries(state).map(([name, value]) => [name, String(value)]).filter(([, value]) => value);
  return `#${parts.map(([name, value]) => `${name}=${tidy(value)}`).join("&")}`;
}

function announce(text) {
  page("announcement").textContent = text;
}

class Page {
  constructor(cells) {
    this.cells = cells;
    this.table = new StatusTable(page("matrix"), cells);
    this.panel = new EvidencePanel(page("evidence"), cells, () => this.go({ cell: "" }));
    this.search = page("search");
    this.views = new Map([...document.querySelectorAll("[data-view]")].map((link) => [link.dataset.view, link]));
    this.listen();
    page("controls").hidden = false;
    this.update();
    performance.mark("interactive");
  }

  listen() {
    addEventListener("hashchange", () => this.update());
    // Every link of the page is a change of what is shown; the rest stays as it is. A click with a modifier is the browser's.
    document.addEventListener("click", (event) => {
      const link = event.target.closest("a[href^='#']");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      const [name, value] = [...new URLSearchParams(link.hash.slice(1))][0];
      this.go({ [name]: value }, true);
    });
    this.search.addEventListener("input", () => this.go({ q: this.search.value.trim() }));
    for (const button of document.querySelectorAll("[data-status]")) {
      button.addEventListener("click", () => this.toggle("status", button.dataset.status));
    }
    for (const box of document.querySelectorAll("[name=column]")) {
      box.addEventListener("change", () => this.toggle("hide", box.value));
    }
    for (const head of this.table.columns) {
      const name = head.dataset.column;
      head.replaceChildren(make("button", { type: "button", onclick: () => this.go({ sort: { [name]: `-${name}`, [`-${name}`]: "" }[this.state.sort] ?? name }) }, name));
    }
    page("reset").addEventListener("click", () => this.go({ q: "", status: [], hide: [], sort: "" }));
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || page("evidence").open || event.target.matches("input")) return;
      event.preventDefault();
      this.search.focus();
    });
  }

  toggle(name, value) {
    const old = this.state[name];
    this.go({ [name]: old.includes(value) ? old.filter((each) => each !== value) : [...old, value] });
  }

  // Views and cells are steps that the browser's back button undoes; filters are not.
  go(change, step = false) {
    const address = toAddress({ ...this.state, ...change });
    if (address === toAddress(this.state)) return;
    history[step ? "pushState" : "replaceState"](null, "", address);
    this.update();
  }

  // The evidence has come: what waited for it is done now.
  complete() {
    const { sort, view } = this.state;
    if (sort || view) this.state = undefined;
    this.update();
    document.documentElement.dataset.complete = "";
    performance.mark("complete");
  }

  update() {
    const before = this.state;
    this.state = readAddress();
    const { view, q, status, hide, sort } = this.state;
    if (!before || toAddress({ ...before, cell: "" }) !== toAddress({ ...this.state, cell: "" })) {
      const left = this.table.apply(this.state);
      if (before) announce(`${left.toLocaleString("en-US")} cells shown`);
      if (this.search.value.trim() !== q) this.search.value = q;
      for (const [name, link] of this.views) link.setAttribute("aria-current", name === view ? "page" : "false");
      for (const button of document.querySelectorAll("[data-status]")) button.setAttribute("aria-pressed", status.includes(button.dataset.status));
      for (const box of document.querySelectorAll("[name=column]")) box.checked = !hide.includes(box.value);
      page("reset").disabled = !(q || status.length || hide.length || sort);
      this.draw(view);
    }
    this.showCell();
  }

  draw(view) {
    const figures = page("figures");
    figures.hidden = !this.views.has(view) || !view;
    page("matrix").hidden = view === "all";
    for (const id of ["causes", "legend", "environment"]) if (page(id)) page(id).hidden = Boolean(view);
    if (figures.hidden || !this.cells.complete) figures.replaceChildren();
    else drawFigures(figures, this.cells, this.table.visible(), this.views.get(view).textContent, view !== "all");
  }

  showCell() {
    if (!this.cells.complete) return;
    const index = this.state.cell ? this.cells.find(this.state.cell) : null;
    if (index === null) {
      if (page("evidence").open) page("evidence").close();
      if (this.state.cell) announce("The matrix has no such cell");
      return;
    }
    const order = [...new Set(this.table.visible())];
    const at = order.indexOf(index);
    this.panel.show(index, [order[at - 1], at < 0 ? undefined : order[at + 1]], (to) => this.go({ cell: this.cells.data.cells.address[to] }));
  }
}

// The reader's setting first; the button goes through the three, and remembers where the browser lets it.
function setUpTheme() {
  const names = ["auto", "light", "dark"], button = page("theme");
  let theme = "auto";
  try { theme = localStorage.getItem("assay-theme") ?? "auto"; } catch { /* closed to this page */ }
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = names[(names.indexOf(theme) + 1) % names.length];
    try { localStorage.setItem("assay-theme", theme); } catch { /* the same */ }
    show();
  });
  button.hidden = false;
  show();
}

async function start() {
  setUpTheme();
  try {
    const cells = new Cells(await unpack(page("packed-index").textContent));
    const shown = new Page(cells);
    cells.add(await unpack(page("packed-evidence").textContent));
    shown.complete();
  } catch (error) {
    page("unpacked").textContent = `The statuses below are complete, but this browser cannot unpack their evidence: ${error.message}`;
    page("unpacked").hidden = false;
    throw error;
  }
}

start();
