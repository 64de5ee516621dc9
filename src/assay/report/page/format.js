// Figures for people: assay.report.units once more. tests/report/test_page.py holds the two together.

function number(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 99.95) return size < 1e9 ? Math.round(value).toLocaleString("en-US") : exponential(value, 2);
  const decimals = 2 - Math.floor(Math.log10(Number(size.toExponential(2))));
  return decimals <= 5 ? value.toFixed(decimals) : exponential(value, 2);
}

function exponential(value, digits) {
  return value.toExponential(digits).replace(/e([+-])(\d)$/, "e$10$2");
}

function scaled(value, steps) {
  const [factor, unit] = steps.find(([least]) => Math.abs(value) >= least) ?? steps.at(-1);
  return `${number(value / factor)} ${unit}`;
}

function quantity(value, unit) {
  if (unit === "s") return scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]);
  if (unit === "B") return scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]]);
  return `${number(value)} ${unit}`;
}

// A unit that no prefix is put before.
function ownUnit(unit) {
  return unit !== "s" && unit !== "B";
}

// assay.report.page.data.times
function times(ratio) {
  return `${ratio.toFixed(ratio >= 9.95 ? 0 : ratio >= 0.995 ? 1 : 2)}×`;
}

function words(name) {
  return name.replaceAll("_", " ");
}

// An element; `on...` are listeners, anything else attributes. There is no other way from a report's text to the page.
function make(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}
