// Arithmetic of single units: pure functions of the data, in double precision.

const INPUT = -1;

function unpacked(packed) {
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

// The network: shapes and numbers by a layer's place, decoded when they are first asked for.
function network(data) {
  const kept = new Map();
  const once = (packed) => {
    if (!packed) return null;
    if (!kept.has(packed)) kept.set(packed, unpacked(packed));
    return kept.get(packed);
  };
  const net = {
    data,
    layer: (at) => data.layers[at],
    name: (at) => (at === INPUT ? "picture" : data.layers[at].name),
    shape: (at) => (at === INPUT ? data.input.shape : data.layers[at].shape),
    array: once,
    values(at) {
      if (at === INPUT) return once(data.input);
      const layer = data.layers[at];
      if (layer.values) return once(layer.values);
      if (!kept.has(layer)) kept.set(layer, derived(net, at));
      return kept.get(layer);
    },
    value: (at, unit) => net.values(at)?.[offset(net.shape(at), unit)] ?? null,
  };
  return net;
}

const offset = ([, h, w], [c, y, x]) => (c * h + y) * w + x;

// A number of an array that is as large as the layer or 1 along each axis.
function spread(net, packed, [c, y, x], usual) {
  if (!packed) return usual;
  const [a, h, w] = packed.shape;
  return net.array(packed)[offset(packed.shape, [a > 1 ? c : 0, h > 1 ? y : 0, w > 1 ? x : 0])];
}

// What was left out because it is exactly what these functions say; null where it is not.
function derived(net, at) {
  const layer = net.layer(at);
  const sources = layer.inputs.map((one) => net.values(one));
  const exact = ["relu", "relu6", "identity", "abs"].includes(layer.function);
  if (!sources.length || sources.includes(null)) return null;
  if (layer.kind === "reshape") return sources[0];
  if (layer.kind === "pointwise" && exact) return sources[0].map((x) => FUNCTIONS[layer.function][1](x));
  if (layer.kind === "concat") {
    const all = new Float32Array(layer.shape.reduce((a, b) => a * b));
    let start = 0;
    for (const one of sources) {
      all.set(one, start);
      start += one.length;
    }
    return all;
  }
  if (layer.kind !== "max_pool") return null;
  const [channels, h, w] = layer.shape;
  const all = new Float32Array(channels * h * w);
  for (let i = 0; i < all.length; i++) {
    all[i] = pool(net, at, [Math.floor(i / (h * w)), Math.floor(i / w) % h, i % w]).computed;
  }
  return all;
}

// Where a window's cell lies along one axis: a position, or null outside; transposed convolutions
// also have cells that read nothing.
function position(layer, axis, at, cell, size) {
  const [stride, padding, dilation] = [layer.stride[axis], layer.padding[axis], layer.dilation[axis]];
  if (layer.kind === "transposed") {
    const from = (at + padding - cell * dilation) / stride;
    return Number.isInteger(from) && from >= 0 && from < size ? from : null;
  }
  const from = at * stride - padding + cell * dilation;
  if (from >= 0 && from < size) return from;
  if (layer.outside === "reflect") return from < 0 ? -from : 2 * (size - 1) - from;
  if (layer.outside === "replicate") return from < 0 ? 0 : size - 1;
  if (layer.outside === "circular") return (from + size) % size;
  return null;
}

// A sum of products, by input channel, the strongest first.
function weighted(net, at, [c, y, x]) {
  const layer = net.layer(at);
  const [source] = layer.inputs;
  const shape = net.shape(source);
  const [kh, kw] = layer.kind === "linear" ? shape.slice(1) : layer.kernel;
  const [values, weights] = [net.values(source), net.array(layer.weights)];
  const made = layer.shape[0] / layer.groups;
  const read = shape[0] / layer.groups;
  const group = Math.floor(c / made);
  const parts = [];
  for (let n = 0; n < read; n++) {
    const channel = group * read + n;
    const first = layer.kind === "transposed" ? channel * made + (c % made) : c * read + n;
    const cells = [];
    for (let a = 0; a < kh; a++) {
      const row = position(layer, 0, y, a, shape[1]);
      for (let b = 0; b < kw; b++) {
        const column = position(layer, 1, x, b, shape[2]);
        const unit = row === null || column === null ? null : [channel, row, column];
        const value = unit === null ? 0 : values ? values[offset(shape, unit)] : null;
        const weight = weights ? weights[(first * kh + a) * kw + b] : null;
        const product = value === null || weight === null ? null : value * weight;
        cells.push({ unit, value, weight, product });
      }
    }
    const known = cells.every((cell) => cell.product !== null);
    const sum = known ? cells.reduce((total, cell) => total + cell.product, 0) : null;
    const force = known ? sum : cells.reduce((total, cell) => total + Math.abs(cell.value ?? 0), 0);
    parts.push({ channel, cells, columns: kw, sum, force: Math.abs(force) });
  }
  parts.sort((a, b) => b.force - a.force);
  const bias = layer.bias ? net.array(layer.bias)[c] : 0;
  const known = parts.every((part) => part.sum !== null);
  const sum = known ? parts.reduce((total, part) => total + part.sum, 0) : null;
  return { parts, bias, sum, computed: known ? sum + bias : null };
}

function pool(net, at, [c, y, x]) {
  const layer = net.layer(at);
  const [source] = layer.inputs;
  const shape = net.shape(source);
  const spans = [y, x].map((one, axis) => {
    const [size, count] = [shape[axis + 1], layer.shape[axis + 1]];
    if (layer.adaptive) {
      const start = Math.floor((one * size) / count);
      const end = Math.ceil(((one + 1) * size) / count);
      return Array.from({ length: end - start }, (_, i) => start + i);
    }
    const start = one * layer.stride[axis] - layer.padding[axis];
    return Array.from({ length: layer.kernel[axis] }, (_, i) => start + i * layer.dilation[axis]);
  });
  const inside = (row, column) => row >= 0 && column >= 0 && row < shape[1] && column < shape[2];
  const cells = spans[0].flatMap((row) =>
    spans[1].map((column) => {
      const unit = inside(row, column) ? [c, row, column] : null;
      return { unit, value: unit ? net.value(source, unit) : null };
    }),
  );
  const real = cells.filter((cell) => cell.unit);
  const columns = spans[1].length;
  if (real.some((cell) => cell.value === null)) return { cells, columns, computed: null };
  if (layer.kind === "max_pool") {
    const winner = real.reduce((best, cell) => (cell.value > best.value ? cell : best), real[0]);
    return { cells, columns, winner, computed: winner.value };
  }
  // What lies beyond the padding, where the last window is cut, never counts.
  const ends = spans.map((span, axis) =>
    layer.adaptive ? span.length : span.filter((one) => one < shape[axis + 1] + layer.padding[axis]).length,
  );
  const count = layer.countPadding ? ends[0] * ends[1] : real.length;
  const sum = real.reduce((total, cell) => total + cell.value, 0);
  return { cells, columns, sum, count, computed: sum / count };
}

// erf by its series of positive terms, which loses nothing (Abramowitz and Stegun 7.1.6).
function erf(x) {
  if (Math.abs(x) > 6) return Math.sign(x);
  let [term, sum] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= (2 * x * x) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const between = (x, low, high) => Math.min(Math.max(x, low), high);
const softplus = (x, b) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(b * x))) / b;
const [ALPHA, LAMBDA] = [1.6732632423543772, 1.0507009873554805];
const cubic = (x) => Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
// Each with how it is written, what it is, and what its parameter p usually is.
const FUNCTIONS = {
  relu: ["max(0, x)", (x) => Math.max(0, x)],
  relu6: ["min(max(0, x), 6)", (x) => between(x, 0, 6)],
  leaky_relu: ["x where x ≥ 0, else p · x", (x, p) => (x >= 0 ? x : p * x), 0.01],
  elu: ["x where x ≥ 0, else p · (eˣ − 1)", (x, p) => (x >= 0 ? x : p * Math.expm1(x)), 1],
  celu: ["x where x ≥ 0, else p · (eˣᐟᵖ − 1)", (x, p) => (x >= 0 ? x : p * Math.expm1(x / p)), 1],
  selu: ["1.0507 · elu(x, 1.6733)", (x) => LAMBDA * (x >= 0 ? x : ALPHA * Math.expm1(x))],
  softplus: ["ln(1 + eᵖˣ) / p", (x, p) => softplus(x, p), 1],
  mish: ["x · tanh(ln(1 + eˣ))", (x) => x * Math.tanh(softplus(x, 1))],
  silu: ["x · sigmoid(x)", (x) => x * sigmoid(x)],
  gelu: ["x · Φ(x)", (x) => 0.5 * x * (1 + erf(x / Math.SQRT2))],
  gelu_tanh: ["x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2", (x) => 0.5 * x * (1 + Math.tanh(cubic(x)))],
  sigmoid: ["1 / (1 + e⁻ˣ)", sigmoid],
  hardsigmoid: ["min(max(0, x + 3), 6) / 6", (x) => between(x + 3, 0, 6) / 6],
  hardswish: ["x · min(max(0, x + 3), 6) / 6", (x) => (x * between(x + 3, 0, 6)) / 6],
  tanh: ["tanh(x)", Math.tanh],
  exp: ["eˣ", Math.exp],
  abs: ["|x|", Math.abs],
  square: ["x²", (x) => x * x],
  sqrt: ["√x", Math.sqrt],
  identity: ["x, unchanged", (x) => x],
};

// One unit: its value, and how it comes about. `from` lists the units that it reads, first the one
// that says most.
function arithmetic(net, at, unit) {
  const value = net.value(at, unit);
  if (at === INPUT) return { kind: "input", value, computed: null, from: [] };
  const layer = net.layer(at);
  const [c, y, x] = unit;
  const [source] = layer.inputs;
  const said = { kind: layer.kind, value, computed: null, from: [] };
  const clipped = (one) => [c, y, x].map((axis, i) => (net.shape(one)[i] > 1 ? axis : 0));
  const read = (one, place) => ({ at: one, unit: place, value: net.value(one, place) });
  if (["convolution", "transposed", "linear"].includes(layer.kind)) {
    Object.assign(said, weighted(net, at, unit));
    const strength = (cell) => Math.abs(cell.product ?? cell.value ?? 0);
    const cells = said.parts.flatMap((part) => part.cells).filter((cell) => cell.unit);
    const best = cells.reduce((a, b) => (a && strength(a) >= strength(b) ? a : b), null);
    if (best) said.from = [{ at: source, ...best }];
  } else if (layer.kind === "max_pool" || layer.kind === "avg_pool") {
    Object.assign(said, pool(net, at, unit));
    const real = said.cells.filter((cell) => cell.unit);
    const best = said.winner ?? real.reduce((a, b) => (b.value > a.value ? b : a), real[0]);
    if (best) said.from = [{ at: source, ...best }];
  } else if (layer.kind === "concat") {
    let [from, channel] = [0, c];
    while (channel >= net.shape(layer.inputs[from])[0]) channel -= net.shape(layer.inputs[from++])[0];
    said.from = [read(layer.inputs[from], [channel, y, x])];
    said.computed = said.from[0].value;
  } else if (layer.kind === "reshape") {
    const flat = offset(layer.shape, unit);
    const [, h, w] = net.shape(source);
    said.from = [read(source, [Math.floor(flat / (h * w)), Math.floor(flat / w) % h, flat % w])];
    said.computed = said.from[0].value;
  } else if (layer.kind === "softmax") {
    const all = Array.from({ length: layer.shape[0] }, (_, one) => read(source, [one, y, x]));
    if (all.every((one) => one.value !== null)) {
      const top = Math.max(...all.map((one) => one.value));
      said.top = top;
      said.total = all.reduce((sum, one) => sum + Math.exp(one.value - top), 0);
      said.computed = Math.exp(all[c].value - top) / said.total;
    }
    said.from = [all[c], ...all.filter((one) => one !== all[c]).sort((a, b) => b.value - a.value)];
  } else if (layer.inputs.every((one) => layer.kind !== "other" || `${net.shape(one)}` === `${layer.shape}`)) {
    said.from = layer.inputs.map((one) => read(one, clipped(one)));
    const known = said.from.map((one) => one.value);
    if (known.includes(null)) return said;
    if (layer.kind === "add") said.computed = known.reduce((a, b) => a + b);
    if (layer.kind === "multiply") said.computed = known.reduce((a, b) => a * b);
    if (layer.kind === "pointwise" && layer.function in FUNCTIONS) {
      const [, apply, usual] = FUNCTIONS[layer.function];
      const slopes = net.array(layer.slope);
      said.parameter = slopes ? slopes[slopes.length > 1 ? c : 0] : usual;
      said.computed = apply(known[0], said.parameter);
    }
    if (layer.kind === "norm" && layer.mean) {
      said.mean = spread(net, layer.mean, unit, 0);
      said.deviation = spread(net, layer.deviation, unit, 1);
      said.scale = spread(net, layer.scale, unit, 1);
      said.shift = spread(net, layer.shift, unit, 0);
      said.computed = ((known[0] - said.mean) / said.deviation) * said.scale + said.shift;
    }
  }
  return said;
}
