// Any activation of a network, and the arithmetic that made it, down to the pixels.
// What it shows comes from a JSON element beside it; text only ever becomes textContent.

const [CHANNELS_SHOWN, UNITS_SHOWN, TILES, LARGEST_MATRIX] = [5, 10, 48, 11];

// ---- Words, colours and elements ----

const SUPER = { "-": "⁻", ...Object.fromEntries([..."0123456789"].map((d, i) => [d, "⁰¹²³⁴⁵⁶⁷⁸⁹"[i]])) };
const signed = (text) => text.replace("-", "−");

// A number with so many significant digits, tiny and huge ones with a power of ten.
function written(value, digits = 5) {
  if (value === null || value === undefined) return "not kept";
  if (!Number.isFinite(value)) return signed(String(value));
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10 ** (digits + 1) || size < 10 ** -Math.max(3, digits - 2)) {
    const [front, power] = value.toExponential(Math.max(0, digits - 3)).split("e");
    return `${signed(front)}·10${[...power.replace("+", "")].map((sign) => SUPER[sign]).join("")}`;
  }
  return signed(String(Number(value.toPrecision(digits))));
}

// In a cell there is room for three digits.
const brief = (value) => {
  if (value === null) return "?";
  const size = Math.abs(value);
  const text = value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
  return signed(Number(text) === 0 ? (value === 0 ? "0" : value < 0 ? "-0.00" : "0.00") : text);
};

function make(name, settings = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(settings)) {
    if (key in element && typeof value !== "string") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const exact = (value, digits) =>
  make("span", { class: "exact", title: value === null ? "" : String(value) }, written(value, digits));

// The page's own colours, so that maps follow light and dark.
function palette() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  };
  return { low: of("--accent"), high: of("--warm"), none: of("--raised"), ink: of("--ink") };
}

// A colour for a number: towards blue below 0 and orange above; grey where nothing is below 0.
function colour(colours, value, most, plain) {
  const share = most > 0 && Number.isFinite(value) ? between(value / most, -1, 1) : 0;
  const end = plain ? colours.ink : share < 0 ? colours.low : colours.high;
  return colours.none.map((from, i) => Math.round(from + Math.abs(share) * (end[i] - from)));
}

const linear = (part) => (part <= 10.31 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4);
const bright = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);

function paint(canvas, colours, numbers, h, w, most, plain) {
  [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  const image = context.createImageData(w, h);
  const steps = 255;
  const table = Array.from({ length: 2 * steps + 1 }, (_, i) => colour(colours, i - steps, steps, plain));
  for (let i = 0; i < h * w; i++) {
    const share = most > 0 && Number.isFinite(numbers[i]) ? between(numbers[i] / most, -1, 1) : 0;
    const [r, g, b] = table[Math.round(share * steps) + steps];
    [image.data[4 * i], image.data[4 * i + 1], image.data[4 * i + 2], image.data[4 * i + 3]] = [r, g, b, 255];
  }
  context.putImageData(image, 0, 0);
}

function extent(numbers) {
  let [low, high] = [Infinity, -Infinity];
  for (const one of numbers) {
    if (one < low) low = one;
    if (one > high) high = one;
  }
  return [low, high];
}

// ---- The block ----

function tracer(root, number) {
  const data = JSON.parse(root.querySelector("script").textContent);
  const still = root.querySelector("img.still");
  const net = network(data);
  const last = data.layers.length - 1;
  const ranges = new Map();
  let [layer, unit, way, all, colours] = [last, [0, 0, 0], [], false, palette()];

  const range = (at) => {
    if (!ranges.has(at)) ranges.set(at, net.values(at) ? extent(net.values(at)) : [0, 0]);
    return ranges.get(at);
  };
  const flat = (at) => net.shape(at)[1] * net.shape(at)[2] === 1;
  const ends = [last, ...(net.layer(last).kind === "softmax" ? net.layer(last).inputs : [])];
  const labelled = (at) => data.labels.length > 0 && ends.includes(at);
  const channel = (at, c) => {
    if (at === INPUT && data.channels.length) return data.channels[c];
    if (labelled(at)) return data.labels[c];
    return `${flat(at) ? "unit" : "channel"} ${c}`;
  };
  const where = (at, [c, y, x]) => `${channel(at, c)}${flat(at) ? "" : `, row ${y}, column ${x}`}`;
  const title = (at, one) => `${net.name(at)}, ${where(at, one)}`;
  const fragment = (at, one) => `#trace=${number > 1 ? `${number}/` : ""}${at}:${one.join(",")}`;

  const strip = make("div", { class: "layers", role: "group", "aria-label": "Layers" });
  const seen = make("div", { class: "seen" });
  const field = make("i", { class: "field" });
  const fieldText = make("p", { class: "small" });
  const picture = make("img", { src: still.getAttribute("src"), alt: still.alt });
  seen.append(make("div", { class: "frame" }, picture, field), fieldText);
  const map = make("canvas", { tabindex: "0", role: "application" });
  const mark = make("i", { class: "field" });
  const frame = make("div", { class: "frame" }, map, mark);
  const mapText = make("p", { class: "small" });
  const chosen = make("div", { class: "chosen" }, frame, mapText);
  const tiles = make("div", { class: "tiles", role: "group" });
  const more = make("button", { type: "button", class: "more" });
  const trail = make("nav", { "aria-label": "Way down" });
  const panel = make("div", { class: "sum" });
  const live = make("p", { class: "unseen", "aria-live": "polite" });
  const hint =
    "Choose a layer, a channel and a unit of its map. With the arrow keys a map's unit moves, Enter goes " +
    "down to what counts most in its sum, Backspace comes back up. Rows, columns and channels count from 0.";
  const shown = make("div", { class: "tracer-live" });
  shown.append(strip, make("div", { class: "views" }, seen, chosen), tiles, more, trail, panel, live);
  shown.append(make("p", { class: "small" }, hint));

  const crisp = (element, size) => element.classList.toggle("crisp", size <= 128);
  picture.addEventListener("load", () => crisp(picture, picture.naturalWidth));

  function place(box, top, left, height, width) {
    const [y0, x0] = [between(top, 0, 1), between(left, 0, 1)];
    const [y1, x1] = [between(top + height, 0, 1), between(left + width, 0, 1)];
    const percent = (share) => `${100 * share}%`;
    Object.assign(box.style, { top: percent(y0), left: percent(x0) });
    Object.assign(box.style, { height: percent(y1 - y0), width: percent(x1 - x0) });
  }

  function go(at, one, { down = false, focus = false } = {}) {
    if (down) way.push([layer, unit]);
    const moved = at !== layer || !strip.children.length;
    [layer, unit] = [at, one];
    if (moved) all = false;
    draw(moved);
    if (focus) map.focus({ preventScroll: true });
  }
  function up() {
    const before = way.pop();
    if (before) go(...before);
  }

  // A button for a unit further down.
  function link(at, one, text, settings = {}) {
    const button = make("button", { type: "button", "aria-label": `${title(at, one)}: ${text}`, ...settings }, text);
    button.addEventListener("click", () => go(at, one, { down: true, focus: true }));
    return button;
  }
  const unitLink = (one) => link(one.at, one.unit, written(one.value), { class: "unit", title: title(one.at, one.unit) });

  function drawStrip() {
    const buttons = [INPUT, ...data.layers.keys()].map((at) => {
      const button = make("button", { type: "button" }, make("b", {}, net.name(at)));
      button.append(make("small", {}, net.shape(at).join("×")));
      if (at === layer) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => {
        way = [];
        go(at, largest(at));
        strip.querySelector("[aria-current]").focus({ preventScroll: true });
      });
      return button;
    });
    strip.replaceChildren(...buttons);
    const current = buttons[layer + 1];
    strip.scrollLeft = current.offsetLeft - strip.offsetLeft - (strip.clientWidth - current.clientWidth) / 2;
  }

  function largest(at) {
    const [values, [, h, w]] = [net.values(at), net.shape(at)];
    if (!values) return [0, 0, 0];
    let best = 0;
    for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
    return [Math.floor(best / (h * w)), Math.floor(best / w) % h, best % w];
  }

  function drawViews() {
    const [, height, width] = net.shape(INPUT);
    const told = layer === INPUT ? [[0, 0], [1, 1], [1, 1]] : net.layer(layer).field;
    field.hidden = !told;
    fieldText.textContent = "What it sees of the picture is not known.";
    if (told) {
      const [first, jump, size] = told;
      const [top, left] = [first[0] + jump[0] * unit[1], first[1] + jump[1] * unit[2]];
      place(field, top / height, left / width, size[0] / height, size[1] / width);
      const beyond = top < 0 || left < 0 || top + size[0] > height || left + size[1] > width;
      const extent = size.map((one) => written(one, 4)).join("×");
      fieldText.textContent = `Sees ${extent} pixels of ${height}×${width}${beyond ? ", some beyond the edge" : ""}.`;
    }
    const [channels, h, w] = net.shape(layer);
    const values = net.values(layer);
    const [low, high] = range(layer);
    chosen.hidden = h * w === 1;
    if (!chosen.hidden && values) {
      const top = Math.max(-low, high);
      paint(map, colours, values.subarray(unit[0] * h * w), h, w, top, low >= 0);
      place(mark, unit[1] / h, unit[2] / w, 1 / h, 1 / w);
    }
    const text = `${channel(layer, unit[0])} of ${net.name(layer)}, ${h}×${w}`;
    map.setAttribute("aria-label", `${text}. Arrow keys move, Enter goes down, Backspace up.`);
    mapText.textContent = values
      ? `${text}. Colours: ${written(low, 3)} to ${written(high, 3)}${low < 0 ? ", blue below 0" : ""}.`
      : `${text}: numbers not kept.`;
    more.hidden = all || channels <= TILES;
    more.textContent = `Show all ${channels} channels`;
  }

  function drawTiles() {
    const [channels, h, w] = net.shape(layer);
    const values = net.values(layer);
    const [low, high] = range(layer);
    const top = Math.max(-low, high);
    const count = all ? channels : Math.min(channels, TILES);
    const list = Array.from({ length: count }, (_, c) => c);
    if (unit[0] >= count) list[count - 1] = unit[0];
    tiles.setAttribute("aria-label", `Channels of ${net.name(layer)}`);
    tiles.classList.toggle("flat", h * w === 1);
    tiles.replaceChildren(
      ...list.map((c) => {
        const button = make("button", { type: "button", "data-channel": String(c) });
        if (h * w === 1) {
          const value = values ? values[c] : null;
          const patch = make("i", {});
          patch.style.background = `rgb(${colour(colours, value, top, low >= 0)})`;
          button.append(patch, make("span", {}, labelled(layer) ? data.labels[c] : String(c)));
          button.append(make("small", {}, written(value, 4)));
        } else {
          const canvas = make("canvas", {});
          if (values) paint(canvas, colours, values.subarray(c * h * w), h, w, top, low >= 0);
          button.append(canvas);
          button.setAttribute("aria-label", channel(layer, c));
          button.title = channel(layer, c);
        }
        return button;
      }),
    );
  }

  // Numbers in a grid; those that stand for units further down can be clicked.
  const most = (cells, pick) => cells.reduce((top, cell) => Math.max(top, Math.abs(pick(cell) ?? 0)), 0);
  function matrix({ cells, columns, pick, name, top = most(cells, pick), at = null, winner = null }) {
    const grid = make("div", { class: "matrix", role: "group", "aria-label": name });
    if (columns > LARGEST_MATRIX || cells.length / columns > LARGEST_MATRIX) {
      const canvas = make("canvas", { role: "img", "aria-label": name, class: "large" });
      const numbers = cells.map((cell) => pick(cell) ?? 0);
      paint(canvas, colours, numbers, cells.length / columns, columns, top, false);
      if (at !== null) {
        canvas.addEventListener("click", (event) => {
          const [y, x] = pointed(canvas, event, cells.length / columns, columns);
          const cell = cells[y * columns + x];
          if (cell.unit) go(at, cell.unit, { down: true, focus: true });
        });
      }
      grid.append(canvas);
      return grid;
    }
    grid.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    for (const cell of cells) {
      const value = pick(cell);
      const outside = at !== null && cell.unit === null;
      const settings = { title: outside ? "outside the map" : String(value) };
      if (outside || cell === winner) settings.class = outside ? "outside" : "winner";
      const text = outside && value === null ? "–" : brief(value);
      const box = at !== null && cell.unit ? link(at, cell.unit, text, settings) : make("span", settings, text);
      const back = colour(colours, outside ? 0 : value, top, false);
      box.style.background = `rgb(${back})`;
      box.style.color = bright(back) > 0.179 ? "#000" : "#fff";
      grid.append(box);
    }
    return grid;
  }

  function products(said) {
    const [source] = net.layer(layer).inputs;
    const single = said.parts[0].cells.length === 1;
    const list = said.parts.slice(0, single ? UNITS_SHOWN : CHANNELS_SHOWN);
    const rest = said.parts.slice(list.length);
    const picks = [(cell) => cell.value, (cell) => cell.weight, (cell) => cell.product];
    const shown = list.flatMap((part) => part.cells);
    const tops = picks.map((pick) => most(shown, pick));
    const names = ["Input patch", "Kernel", "Products"];
    const rows = list.map((part) => {
      const grid = (i) => {
        const at = i === 0 ? source : null;
        return matrix({ ...part, pick: picks[i], name: names[i], top: tops[i], at });
      };
      const line = make("div", { class: "line" }, grid(0), make("span", {}, "×"));
      if (part.cells[0].weight === null) line.append(make("em", {}, "kernel not kept"));
      else {
        line.append(grid(1), make("span", {}, "="));
        if (!single) line.append(grid(2), make("span", {}, "Σ"));
        line.append(make("b", {}, exact(part.sum)));
      }
      return make("li", {}, make("p", { class: "name" }, `${net.name(source)}, ${channel(source, part.channel)}`), line);
    });
    if (rest.length) {
      const sum = rest.reduce((total, part) => total + part.sum, 0);
      const line = make("p", { class: "name" }, `The other ${rest.length} together `);
      rows.push(make("li", {}, line, make("div", { class: "line" }, make("b", {}, exact(said.sum === null ? null : sum)))));
    }
    const count = said.parts.length * said.parts[0].cells.length;
    const parts = [`Sum of ${count} products `, exact(said.sum), " + bias ", exact(said.bias), " = ", exact(said.computed, 6)];
    return [make("ol", { class: single ? "products single" : "products" }, ...rows), make("p", { class: "total" }, ...parts)];
  }

  // How a unit's number comes about, as elements.
  function steps(said) {
    if (layer === INPUT) return ["A number of the picture itself, as the first layer reads it."];
    const one = net.layer(layer);
    const [first] = said.from;
    if (said.parts) return products(said);
    if (said.cells) {
      const grid = matrix({ ...said, pick: (cell) => cell.value, name: "Window", at: one.inputs[0] });
      const words = said.winner ? ["The largest is ", exact(said.computed)] : ["Mean: ", exact(said.sum ?? null), ` / ${said.count} = `, exact(said.computed)];
      return [make("div", { class: "line" }, grid), make("p", { class: "total" }, ...words)];
    }
    if (!first) return ["How it comes about is not told here; the layer reads ", one.inputs.map(net.name).join(", "), "."];
    const value = unitLink(first);
    if (one.kind === "norm" && said.mean !== undefined) {
      const closed = (number) => (number < 0 ? make("span", {}, "(", exact(number), ")") : exact(number));
      const middle = [closed(said.mean), ") / ", exact(said.deviation), " · ", closed(said.scale)];
      const ends = [" + ", closed(said.shift), " = ", exact(said.computed)];
      const rule = make("p", { class: "small" }, "(x − μ) / σ · γ + β");
      return [rule, make("p", { class: "total" }, "(", value, " − ", ...middle, ...ends)];
    }
    if (one.kind === "pointwise") {
      const [rule] = FUNCTIONS[one.function] ?? [`${one.function}(x)`];
      const parameter = said.parameter === undefined ? "" : `, p = ${written(said.parameter)}`;
      const about = make("p", { class: "small" }, `${one.function}: ${rule}${parameter}`);
      return [about, make("p", { class: "total" }, "before ", value, " → after ", exact(said.computed ?? said.value))];
    }
    if (one.kind === "softmax") {
      const power = `e^(x − ${written(said.top)})`;
      const list = said.from.slice(0, UNITS_SHOWN).map((from) => make("li", {}, `${channel(first.at, from.unit[0])} `, unitLink(from)));
      const words = make("p", { class: "total" }, power, " / ", exact(said.total ?? null), " = ", exact(said.computed), " where x = ", value);
      return [make("p", { class: "small" }, `${power} over the sum of the same of all ${one.shape[0]} channels`), words, make("ol", { class: "terms" }, ...list)];
    }
    if (one.kind === "concat" || one.kind === "reshape") return ["The same number as ", value, ` of ${title(first.at, first.unit)}.`];
    const sign = { add: " + ", multiply: " × " }[one.kind] ?? ", ";
    const list = said.from.flatMap((from, i) => [i ? sign : "", unitLink(from), ` (${net.name(from.at)})`]);
    return [make("p", { class: "total" }, one.kind === "other" ? "At this place it reads " : "", ...list, ...(said.computed === null ? [] : [" = ", exact(said.computed)]))];
  }

  function drawPanel() {
    const said = arithmetic(net, layer, unit);
    const head = make("h3", {}, make("a", { href: fragment(layer, unit), title: "Address of this unit" }, title(layer, unit)));
    const big = make("p", { class: "value" }, exact(said.value, 6));
    panel.replaceChildren(head, big, ...steps(said));
    if (said.computed !== null && said.value !== null) {
      const miss = said.computed - said.value;
      const words = miss === 0 ? ["Exactly what the network computed."] : ["The network computed ", exact(said.value, 6), "; the sum here misses it by ", exact(miss, 4), "."];
      panel.append(make("p", { class: "small miss" }, ...words));
    }
    Object.assign(panel.dataset, { unit: `${layer}:${unit}`, value: said.value, computed: said.computed });
    live.textContent = `${title(layer, unit)}: ${written(said.value)}`;
    const items = [...way, [layer, unit]].map(([at, one], depth) => {
      const here = depth === way.length;
      const button = make(here ? "span" : "button", here ? { "aria-current": "location" } : { type: "button" }, title(at, one));
      button.addEventListener("click", () => {
        if (!here) {
          way = way.slice(0, depth);
          go(at, one);
        }
      });
      return make("li", {}, button);
    });
    trail.hidden = way.length === 0;
    trail.replaceChildren(make("ol", {}, ...items));
  }

  function draw(whole = true) {
    if (whole) drawStrip();
    drawViews();
    if (whole || !tiles.querySelector(`[data-channel="${unit[0]}"]`)) drawTiles();
    for (const tile of tiles.children) {
      const here = Number(tile.dataset.channel) === unit[0];
      tile.setAttribute("aria-pressed", String(here));
      tile.tabIndex = here ? 0 : -1;
    }
    drawPanel();
  }

  const pointed = (canvas, event, h, w) => {
    const box = canvas.getBoundingClientRect();
    const at = (from, start, size, count) => between(Math.floor(((from - start) / size) * count), 0, count - 1);
    return [at(event.clientY, box.top, box.height, h), at(event.clientX, box.left, box.width, w)];
  };
  map.addEventListener("click", (event) => {
    const [, h, w] = net.shape(layer);
    way = [];
    go(layer, [unit[0], ...pointed(map, event, h, w)]);
  });
  const MOVES = { ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1] };
  map.addEventListener("keydown", (event) => {
    const shape = net.shape(layer);
    const move = { ...MOVES, PageUp: [-1, 0, 0], PageDown: [1, 0, 0] }[event.key];
    if (move) go(layer, unit.map((one, i) => between(one + move[i], 0, shape[i] - 1)));
    else if (event.key === "Enter") descend();
    else if (event.key === "Backspace") up();
    else return;
    event.preventDefault();
  });
  function descend() {
    const [first] = arithmetic(net, layer, unit).from;
    if (first) go(first.at, first.unit, { down: true, focus: true });
  }
  tiles.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const [, h, w] = net.shape(layer);
    const canvas = button.querySelector("canvas");
    const spot = canvas && event.detail ? pointed(canvas, event, h, w) : unit.slice(1);
    way = [];
    go(layer, [Number(button.dataset.channel), ...spot]);
    tiles.querySelector("[tabindex='0']").focus({ preventScroll: true });
  });
  tiles.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (step) {
      go(layer, [between(unit[0] + step, 0, net.shape(layer)[0] - 1), unit[1], unit[2]]);
      tiles.querySelector("[tabindex='0']").focus({ preventScroll: true });
    } else if (event.key === "Backspace") up();
    else return;
    event.preventDefault();
  });
  more.addEventListener("click", () => {
    all = true;
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    colours = palette();
    draw();
  });

  // The unit that the address names, where it names one of this block.
  function addressed() {
    const found = /^#trace=(?:(\d+)\/)?(-?\d+):(\d+),(\d+),(\d+)$/.exec(location.hash);
    if (!found || Number(found[1] ?? 1) !== number) return false;
    const [at, ...one] = found.slice(2).map(Number);
    if (at < INPUT || at > last || one.some((place, i) => place >= net.shape(at)[i])) return false;
    way = [];
    go(at, one);
    root.scrollIntoView({ behavior: "instant" });
    return true;
  }
  for (const element of root.querySelectorAll(".still")) element.hidden = true;
  root.append(shown);
  if (!addressed()) {
    if (data.start) go(data.start[0], data.start.slice(1));
    else go(last, largest(last));
  }
  addEventListener("hashchange", addressed);
}

document.querySelectorAll("[data-tracer]").forEach((root, place) => tracer(root, place + 1));
