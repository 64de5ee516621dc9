// The difference to a baseline. This file comes last, and only into pages that have one; others hold nothing of it. The
// classes are those of the other files, and know more before the page starts, which waits for its data.

const readOthers = readAddress;
readAddress = () => {
  const { cell, ...others } = readOthers();
  return { ...others, changed: new URLSearchParams(location.hash.slice(1)).get("changed") ? "1" : "", cell };
};

StatusTable = class extends StatusTable {
  // A search finds the words of a mark too.
  textOf(entry) {
    if (!entry.text) entry.text = [super.textOf(entry), ...entry.places.flat().map((index) => this.cells.data.against.changed[index])].join(" ");
    return entry.text;
  }

  apply(state) {
    const left = super.apply(state);
    if (!state.changed) return left;
    const { changed } = this.cells.data.against, matches = this.matches;
    this.matches = (index) => matches(index) && index in changed;
    for (const entry of this.left) entry.found = entry.found.filter(this.matches);
    this.left = this.left.filter(({ found }) => found.length);
    this.show(ROWS_SHOWN);
    return this.visible().length;
  }
};

EvidencePanel = class extends EvidencePanel {
  show(index, neighbours, open) {
    super.show(index, neighbours, open);
    const found = this.cells.data.cells.against[index];
    if (found) this.dialog.querySelector("header").after(section("Against the baseline", found.map((each) => this.against(this.cells.at(index), each))));
  }

  against(cell, { fresh, name, measured, status: [before, verdict] = [], error, figures = [], apart }) {
    if (fresh) return make("p", {}, this.mark("new"), ": the baseline has no such cell.");
    const { data } = this.cells, when = data.against.measured[measured];
    const rows = [["Status", status(before, this.cells), status(cell.status, this.cells), "", "", verdict ? this.mark(verdict) : "the same"]];
    if (error) rows.push(["Agreement error, share of its bound", number(error[0]), number(error[1]), `×${(error[1] / error[0]).toFixed(2)}`, "", this.mark("change")]);
    for (const [kind, base, now, ratio, p, outcome] of figures) {
      const [what, unit, runs] = data.against.kinds[kind], said = data.against.outcomes[outcome];
      const counted = runs.every((count) => count === 1) ? null : make("small", {}, ` ${runs[0]} and ${runs[1]} runs`);
      rows.push([[what, counted], quantity(base, unit), quantity(now, unit), `×${ratio.toFixed(2)}`, String(p), said in data.against.glyphs ? this.mark(said) : said]);
    }
    return [
      make("p", { class: "note" }, sentence([name, when ? `measured ${when}` : "nobody had run it"].filter(Boolean).join(", "))),
      make("table", { class: "plain differences" },
        make("caption", { class: "unseen" }, "What was found of this cell in the baseline and here"),
        make("thead", {}, make("tr", {}, ["Figure", "Before", "Now", "Ratio", "p", "Counts as"].map((head) => make("th", { scope: "col" }, head)))),
        make("tbody", {}, rows.map(([what, ...others]) => make("tr", {}, make("th", { scope: "row" }, what), others.map((each) => make("td", {}, each)))))),
      apart ? make("p", { class: "note" }, `Figures were not compared: ${apart}.`) : null,
    ];
  }

  mark(verdict) {
    return make("span", { class: `mark ${verdict}` }, make("b", {}, `${this.cells.data.against.glyphs[verdict]} ${verdict}`));
  }
};

Page = class extends Page {
  listen() {
    super.listen();
    page("changed").addEventListener("change", (event) => this.go({ changed: event.target.checked ? "1" : "" }));
    page("reset").addEventListener("click", () => this.go({ changed: "" }));
  }

  update() {
    super.update();
    const { changed, view } = this.state;
    page("changed").checked = Boolean(changed);
    if (changed) page("reset").disabled = false;
    if (page("against")) page("against").hidden = Boolean(view);
  }
};
