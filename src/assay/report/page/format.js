// Figures for people: assay.report.units once more. tests/report/test_page.py holds the two together.

function number(value, digits = 3) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 10 ** (digits - 1) - 0.05) return size < 1e9 ? Math.round(value).toLocaleString("en-US") : exponential(value, digits - 1);
  const decimals = digits - 1 - Math.floor(Math.log10(Number(size.toExponential(digits - 1))));
  return decimals <= 5 ? value.toFixed(decimals) : exponential(value, digits - 1);
}

function exponential(value, digits) {
  return value.toExponential(digits).replace(/e([+-])(\d)$/, "e$10$2");
}

function scaled(value, steps, digits) {
  const [factor, unit] = steps.find(([least]) => Math.abs(value) >= least) ?? steps.at(-1);
  return `${number(value / factor, digits)} ${unit}`;
}

function quantity(value, unit, digits) {
  if (unit === "s") return scaled(value, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]], digits);
  if (unit === "B") return scaled(value, [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]], digits);
  return `${number(value, digits)} ${unit}`;
}

// A point of a curve: packed with two digits, which are more than its chart shows.
function point(value, unit) {
  return ownUnit(unit) ? number(value, 2) : quantity(value, unit, 2);
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
