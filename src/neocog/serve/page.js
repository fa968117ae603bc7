"use strict";
const at = (id) => document.getElementById(id);
const [model, file, drop, preview, answer] = ["model", "file", "drop", "preview", "answer"].map(at);
const option = () => (model.options ? model.selectedOptions[0] : model);
const several = Boolean(model.options);
let chosen = null;
let asked = 0;

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function address() {
  const url = new URL("predict", document.baseURI);
  if (several) url.searchParams.set("model", model.value);
  return url;
}

function bar(label, share, text) {
  const row = document.createElement("li");
  const name = document.createElement("bdi");
  name.textContent = label;
  const number = document.createElement("span");
  number.textContent = text;
  row.append(name, number);
  if (share !== null) {
    const track = document.createElement("span");
    track.className = "track";
    track.setAttribute("aria-hidden", "true");
    const part = document.createElement("i");
    part.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
    track.append(part);
    row.append(track);
  }
  return row;
}

function rows(found) {
  if (found.shares) return Object.entries(found.shares).slice(0, 8).map(([name, share]) => bar(name, share, percent(share)));
  if (found.values) return Object.entries(found.values).map(([name, value]) => bar(name, null, String(Number(value.toPrecision(6)))));
  return found.top.map((one) => bar(one.label, one.probability, percent(one.probability)));
}

function show(found, seconds) {
  const said = found.values ? "" : found.label;
  at("said").textContent = found.labels && !found.labels.length ? "None of the labels" : said.split("|").join(", ");
  at("bars").replaceChildren(...rows(found));
  at("took").textContent = `${Math.round(1000 * seconds)} ms, sending included`;
  at("found").hidden = false;
}

function trouble(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = !text;
  if (text) at("found").hidden = true;
}

async function ask() {
  if (!chosen || !option().hasAttribute("data-pictures")) return;
  const turn = ++asked;
  at("quiet").textContent = "Asking …";
  at("quiet").hidden = !at("found").hidden;
  answer.classList.add("busy");
  trouble("");
  const began = performance.now();
  let found = null;
  let text = "";
  try {
    const headers = { "Content-Type": chosen.type.startsWith("image/") ? chosen.type : "application/octet-stream" };
    const reply = await fetch(address(), { method: "POST", body: chosen, headers });
    const said = await reply.json();
    if (reply.ok) found = said;
    else text = `The server refused the picture: ${said.error.replace(/^image: /, "")}.`;
  } catch {
    text = "The server did not answer. Is it still running?";
  }
  if (turn !== asked) return; // another picture was chosen meanwhile
  answer.classList.remove("busy");
  at("quiet").hidden = true;
  trouble(text);
  if (found) show(found, (performance.now() - began) / 1000);
}

function choose(one) {
  if (!one || !option().hasAttribute("data-pictures")) return;
  chosen = one;
  if (preview.src) URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(one);
  preview.hidden = false;
  drop.classList.add("filled");
  at("invite").textContent = `${one.name} · choose another`;
  ask();
}

function changed() {
  const offered = option().hasAttribute("data-pictures");
  at("takes").textContent = `Takes ${option().dataset.takes}.`;
  drop.classList.toggle("off", !offered);
  file.disabled = !offered;
  at("curl").textContent = offered
    ? `curl --data-binary @picture.jpg '${address()}'`
    : `curl '${new URL(`v2/models/${model.value}`, document.baseURI)}'`;
  at("found").hidden = true;
  at("quiet").hidden = false;
  at("quiet").textContent = offered
    ? "The answer appears here."
    : "This model does not take pictures; ask it with a client of the Open Inference Protocol.";
  trouble("");
  ask();
}

preview.addEventListener("load", () => preview.classList.toggle("tiny", Math.max(preview.naturalWidth, preview.naturalHeight) < 128));
preview.addEventListener("error", () => {
  preview.hidden = true; // no picture, or of a kind that is unknown here
  if (chosen) at("invite").textContent = `${chosen.name} cannot be shown here · choose another`;
});
file.addEventListener("change", () => choose(file.files[0]));
model.addEventListener("change", changed);
document.addEventListener("paste", (event) => choose([...event.clipboardData.files][0]));
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
document.addEventListener("dragover", () => drop.classList.add("over"));
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => choose(event.dataTransfer.files[0]));
changed();
