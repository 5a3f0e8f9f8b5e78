/* The network. Vectors are arrays; a matrix [I, O] is one array, row after row. */
const unpack = packed => new Float32Array(Uint8Array.from(atob(packed), byte => byte.charCodeAt(0)).buffer);
const network = JSON.parse(by("network").textContent, (_, value) => value?.float32 ? unpack(value.float32) : value);
const zeros = size => new Float64Array(size);
const add = (x, y) => x.map((value, n) => value + y[n]);
const multiply = (x, y) => x.map((value, n) => value * y[n]);
const sum = x => x.reduce((total, value) => total + value, 0);
const sigmoid = x => 1 / (1 + Math.exp(-x));

function product(x, weights) {
  const size = weights.length / x.length, sums = zeros(size);
  for (let i = 0; i < x.length; i++)
    if (x[i] !== 0)  // most of a one-hot vector is
      for (let o = 0; o < size; o++) sums[o] += x[i] * weights[i * size + o];
  return sums;
}

const cells = {  // one step of each: its gates and new state; the equations are in jaxrnn/cells
  rnn(w, x, {h}) {
    const sums = add(add(product(x, w.input), product(h, w.hidden)), w.bias);
    return {h: sums.map(w.relu ? x => Math.max(0, x) : Math.tanh)};
  },
  gru(w, x, {h}) {
    const fromX = add(product(x, w.input), w.bias), fromH = product(h, w.hidden);
    const r = add(fromH.subarray(0, w.units), fromX).map(sigmoid);
    const z = add(fromH.subarray(w.units), fromX.subarray(w.units)).map(sigmoid);
    const reset = w.reset_after ? multiply(r, add(product(h, w.hidden_n), w.bias_n))
      : product(multiply(r, h), w.hidden_n);
    const n = add(reset, fromX.subarray(2 * w.units)).map(Math.tanh);
    return {r, z, n, h: h.map((old, k) => (1 - z[k]) * n[k] + z[k] * old)};
  },
  lstm(w, x, {c: old, h: before}) {
    const sums = add(add(product(x, w.input), product(before, w.hidden)), w.bias);
    const part = gate => sums.subarray(w.units * w.gates.indexOf(gate));
    const i = add(multiply(old, w.pi), part("i")).map(sigmoid);
    const f = w.gates.includes("f") ? add(multiply(old, w.pf), part("f")).map(sigmoid) : i.map(x => 1 - x);
    const g = part("g").slice(0, w.units).map(Math.tanh);
    const c = add(multiply(f, old), multiply(i, g)).map(x => Math.max(-w.clip, Math.min(w.clip, x)));
    const o = add(multiply(c, w.po), part("o")).map(sigmoid), h = multiply(o, c.map(Math.tanh));
    return {i, f, o, g, c, h: w.projection ? product(h, w.projection) : h};
  },
};

const start = {logits: [], layers: network.layers.map(layer => ({c: zeros(layer.units), h: zeros(layer.outputs)}))};

function step(state, id) {  // read a token: each layer's gates and state, and the next token's logits
  const {vocabulary, embedding, readout, readout_bias} = network, size = vocabulary.length;
  const features = embedding ? embedding.length / size : size;
  let x = embedding ? embedding.slice(id * features, (id + 1) * features) : zeros(size).fill(1, id, id + 1);
  const layers = network.layers.map((layer, n) => {
    const now = cells[layer.kind](layer, x, state.layers[n]);
    x = layer.residual ? add(now.h, x) : now.h;
    return now;
  });
  return {layers, logits: add(product(x, readout), readout_bias)};
}

function chances({logits}, temperature) {  // of each token to be the next
  const most = Math.max(...logits), divisor = Math.max(temperature, 1e-30);  // as good as 0
  const weights = logits.map(logit => Math.exp((logit - most) / divisor)), total = sum(weights);
  return weights.map(weight => weight / total);
}

/* Text and tokens, by the rules of jaxrnn/text/tokenizer.py. */
const idOf = new Map(network.vocabulary.map((token, id) => [token, id]));
const bytesOf = letter => Array.from(new TextEncoder().encode(letter), byte => String.fromCharCode(byte));
const jamoOf = letter => /[가-힣]/.test(letter) ? [...letter.normalize("NFD")] : [letter];
const split = {characters: letter => [letter], bytes: bytesOf, jamo: jamoOf}[network.tokenizer];
const composed = text => split === bytesOf ? text : text.replace(/\r\n?/g, "\n").normalize("NFC");
const known = letter => split(letter).every(token => idOf.has(token));
const encode = text => [...composed(text)].filter(known).flatMap(split).map(token => idOf.get(token));

function decode(ids) {  // as a text box has it: with \n for \r
  const tokens = ids.map(id => network.vocabulary[id]).join("");
  if (split !== bytesOf) return split === jamoOf ? tokens.normalize("NFC") : tokens;
  const bytes = Uint8Array.from(tokens, token => token.charCodeAt(0));
  return new TextDecoder("utf-8", {ignoreBOM: true}).decode(bytes).replace(/\r\n?/g, "\n");
}

/* The tab: a box of text, which the network reads from its start, token by token. */
const box = by("box");
let ids = [], done = 0, state = start, writing = false, timer;  // the text's tokens, of which `done` are read

function run() {  // read for a moment, then write a token
  clearTimeout(timer);
  const until = performance.now() + 20;
  while (done < ids.length && performance.now() < until) state = step(state, ids[done++]);
  writing &&= ids.length < box.maxLength;
  by("write").textContent = writing ? "Stop" : "Write";
  show();
  if (done < ids.length) timer = setTimeout(run);
  else if (writing) timer = setTimeout(() => type(sample()), 40);
}

function sample() {  // the first to arrive, if a token of probability p takes the time Exp(1) / p
  if (state === start) return idOf.get("\n") ?? 0;  // as `jaxrnn sample` begins
  const speeds = chances(state, by("heat").value).map(chance => chance / -Math.log(Math.random()));
  return speeds.indexOf(Math.max(...speeds));
}

function type(id) {
  ids.push(id);
  box.value = decode(ids);
  box.scrollTop = box.scrollHeight;
  run();
}

function read(event) {  // the box again, as the reader has changed it
  if (event.isComposing) return;  // half a syllable
  const letters = [...composed(box.value)], refused = new Set(letters.filter(letter => !known(letter)));
  const quoted = [...refused].map(letter => JSON.stringify(letter)).join(" ");
  by("said").textContent = quoted && "Not in the vocabulary, so left out: " + quoted;
  if (quoted) {
    const caret = decode(encode(box.value.slice(0, box.selectionStart))).length;
    box.value = letters.filter(known).join("");
    box.setSelectionRange(caret, caret);
  }
  const old = ids.slice(0, done);
  [ids, writing] = [encode(box.value), false];
  if (old.some((id, n) => id !== ids[n])) [done, state] = [0, start];
  run();
}

const bars = network.vocabulary.slice(0, 10).map(() => by("bars").appendChild(make("button", "")));

function show() {
  const likely = chances(state, by("heat").value), order = [...likely.keys()].sort((a, b) => likely[b] - likely[a]);
  by("degrees").textContent = Number(by("heat").value).toFixed(2);
  bars.forEach((bar, n) => {
    bar.hidden = state === start;
    bar.value = order[n];
    bar.textContent = network.names[order[n]];
    bar.dataset.share = share(likely[order[n]]);
    bar.style.setProperty("--p", 100 * likely[order[n]] + "%");
  });
  document.querySelectorAll("#units figure").forEach(figure => {
    const {[figure.dataset.name]: values} = state.layers[by("depth").value];
    figure.hidden = state === start || !values;
    if (!figure.hidden) draw(figure, figure.dataset.name === "c" ? values.map(Math.tanh) : values);
  });
}

function draw(figure, values) {  // a square for each unit
  const canvas = figure.querySelector("canvas"), pen = canvas.getContext("2d");
  const side = 20, columns = Math.max(16, Math.ceil(Math.sqrt(3 * values.length)));
  const {color, borderColor} = getComputedStyle(canvas);  // above 0, and below
  [canvas.width, canvas.height] = [columns * side, Math.ceil(values.length / columns) * side];
  values.forEach((value, n) => {
    pen.fillStyle = value < 0 ? borderColor : color;
    pen.globalAlpha = Math.min(1, Math.abs(value));
    pen.fillRect(n % columns * side, Math.floor(n / columns) * side, side - 2, side - 2);
  });
  figure.querySelector("output").textContent = signed(sum(values) / values.length, 2);
}

by("write").addEventListener("click", () => { writing = !writing; run(); });
by("reset").addEventListener("click", event => { box.value = ""; box.focus(); read(event); });
box.addEventListener("compositionstart", () => { writing = false; run(); });
for (const name of ["input", "compositionend"]) box.addEventListener(name, read);
for (const bar of bars) bar.addEventListener("click", () => type(Number(bar.value)));
for (const id of ["heat", "depth"]) by(id).addEventListener("input", show);
by("theme").addEventListener("click", show);
network.layers.forEach((_, n) => by("depth").add(new Option(`layer ${n + 1}`, n)));
box.value = network.prompt;
read({});
