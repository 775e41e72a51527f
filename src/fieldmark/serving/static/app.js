// The web page: one card per photo. It sends requests only to the server that it comes from.
"use strict";

const CONCURRENT = 2; // photos in progress: other clients use the server too
const ATTEMPTS = 6; // requests to a busy server
const RANKS = ["kingdom", "phylum", "class", "order", "family", "genus"];

const byId = (id) => document.getElementById(id);
const waiting = [];
let inProgress = 0;
let done = 0;
let requested = 0;
let key = "";
let about = { offers: {}, limits: {} };

// The language of the page: the server sends what is said in it by the English text.

const words = JSON.parse(byId("words").textContent);
const language = document.documentElement.lang;
const point = (0.5).toLocaleString(language)[1];

// Messages stand in the code in English, between double quotes: the server reads them there.
function say(message, values = {}) {
  return (words[message] ?? message).replace(/{(\w+)}/g, (all, name) => values[name] ?? all);
}

// A message with elements in it, as a list for `append`.
function sayWith(message, values) {
  return say(message).split(/({\w+})/).map((part) => (/^{\w+}$/.test(part) ? values[part.slice(1, -1)] : part));
}

// A text of the server: it is in English where the page has no translation of it.
function fromServer(tag, className, text) {
  const made = element(tag, className, say(text));
  if (!(text in words)) made.lang = "en";
  return made;
}

// Requests

class Problem extends Error {
  constructor(message, { canRetry = false, keyNeeded = false, inEnglish = false } = {}) {
    super(message);
    Object.assign(this, { canRetry, keyNeeded, inEnglish });
  }
}

const pause = (seconds) => new Promise((go) => setTimeout(go, 1000 * seconds));

async function call(path, file, onWait = () => {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (file) headers["Content-Type"] = "application/octet-stream";
  for (let time = 1; ; time += 1) {
    const answer = await send(path, { method: file ? "POST" : "GET", headers, body: file });
    if (answer.status !== 503 || time === ATTEMPTS) return read(answer);
    const seconds = Number(answer.headers.get("Retry-After")) || 2;
    onWait(seconds);
    await pause(seconds);
  }
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new Problem(say("The server cannot be reached: check that it is running."), { canRetry: true });
  }
}

async function read(answer) {
  const value = await answer.json().catch(() => ({}));
  if (answer.ok) return value;
  const message = value.error?.message ?? say("The server answered with {status}.", { status: answer.status });
  const canRetry = answer.status >= 500 || answer.status === 408;
  throw new Problem(say(message), { canRetry, keyNeeded: answer.status === 401, inEnglish: message === value.error?.message && !(message in words) });
}

// Texts and elements

function element(name, className, ...content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

function percent(score) {
  if (score > 0.999) return `> 99${point}9 %`;
  if (score < 0.001) return `< 0${point}1 %`;
  return `${(100 * score).toFixed(1).replace(".", point)} %`;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const everyday = (label) => capital(label.common_name || label.name);

function names(label) {
  const both = element("span", "", everyday(label));
  if (label.common_name) both.append(" ", latin("span", label.name));
  return both;
}

function latin(tag, name) {
  const made = element(tag, "latin", name);
  made.lang = "la";
  return made;
}

function taxonomyLine(label) {
  const known = RANKS.filter((rank) => label.ranks[rank] && label.ranks[rank] !== label.name);
  const line = element("p", "path");
  known.forEach((rank) => {
    const step = element("span", "", label.ranks[rank]);
    step.title = say(rank);
    line.append(step);
  });
  return line;
}

function labelRow(label) {
  const share = element("span", "share", percent(label.score));
  const bar = element("div", "bar");
  const track = element("div", "track", bar);
  track.setAttribute("aria-hidden", "true"); // the number beside it has the same value
  requestAnimationFrame(() => requestAnimationFrame(() => {
    bar.style.width = `${Math.max(0.5, 100 * label.score)}%`;
  }));
  return element("li", "", element("div", "line", names(label), share), track);
}

function verdict(photo) {
  const best = photo.labels[0];
  const answer = photo.answer;
  if (photo.prior || photo.note) return [...verdict({ ...photo, prior: null, note: null }), ...remarks(photo)];
  const likeliest = element("span", "", names(best), ` (${percent(best.score)})`);
  if (answer.source === "unknown") {
    const text = sayWith("This photo is unlike those that the classifier learned from. Of the names it knows, the most likely is {name}.", { name: likeliest });
    return [element("h2", "", say("Unknown")), element("p", "note", ...text)];
  }
  if (answer.source === "not sure") {
    const text = sayWith("The most likely is {name}, but its confidence is too low for an answer.", { name: likeliest });
    return [element("h2", "", say("Not sure")), element("p", "note", ...text), taxonomyLine(best)];
  }
  if (answer.source === "rolled up") {
    const title = element("h2", "", ...sayWith("{rank}: {name}", { rank: capital(say(answer.rank)), name: latin("span", answer.name) }));
    const text = sayWith("The species is uncertain; the most likely is {name}.", { name: likeliest });
    return [title, element("p", "note", ...text), taxonomyLine(answer)];
  }
  const parts = [element("h2", "", everyday(answer))];
  if (answer.common_name) parts.push(latin("p", answer.name));
  return [...parts, taxonomyLine(answer)];
}

function remarks(photo) {
  const said = [];
  if (photo.note) said.push(say("The file ends too early: what is there of the photo was classified."));
  if (photo.prior?.used) said.push(say("What is to be expected there counts: {reason}.", { reason: say(photo.prior.reason) }));
  if (photo.prior && !photo.prior.used) said.push(say("By the photo alone: {reason}.", { reason: say(photo.prior.reason) }));
  return said.map((text) => element("p", "quiet", text));
}

function whereAndWhen() {
  const asked = new URLSearchParams({ top: 5 });
  for (const name of ["lat", "lon", "date"]) {
    if (byId(name).value) asked.set(name, byId(name).value);
  }
  return asked;
}

function useWhere(event) {
  event.preventDefault();
  const incomplete = !byId("lat").value !== !byId("lon").value;
  byId("lon").setCustomValidity(incomplete ? say("A place needs both latitude and longitude.") : "");
  if (!event.target.reportValidity()) return;
  document.querySelectorAll(".card:not(.busy)").forEach((node) => add(node.card));
}

function summaryText(photo) {
  const { source, rank, score, name } = photo.answer;
  if (source === "unknown") return say("Unknown: unlike the photos that the classifier learned from.");
  if (source === "not sure") return say("Not sure.");
  if (source === "rolled up") return say("{rank}: {name}, {share}.", { rank: capital(say(rank)), name, share: percent(score) });
  return `${everyday(photo.answer)}, ${percent(score)}.`;
}

function announce(text) {
  byId("status").textContent = text;
}

function announceProgress(last) {
  const count = requested === 1 ? "" : `${say("{done} of {all} photos.", { done, all: requested })} `;
  announce(count + (done < requested ? say("Classifying…") : last));
}

// A card

class Card {
  constructor(file) {
    this.file = file;
    this.node = byId("card").content.firstElementChild.cloneNode(true);
    this.node.card = this;
    this.url = URL.createObjectURL(file);
    const image = this.find(".photo");
    image.addEventListener("error", () => this.noPreview());
    image.src = this.url;
    image.alt = say("Your photo {name}", file);
    this.find("figcaption").textContent = file.name;
    this.find("figcaption").title = file.name;
    this.node.setAttribute("aria-label", file.name);
    this.find(".remove").setAttribute("aria-label", say("Remove {name}", file));
    this.find(".remove").addEventListener("click", () => this.remove());
    this.find(".again").addEventListener("click", () => add(this));
    this.find(".show-heat").addEventListener("click", () => this.toggleHeat());
    this.find(".show-similar").addEventListener("click", () => this.toggleSimilar());
  }

  find(selector) {
    return this.node.querySelector(selector);
  }

  noPreview() {
    this.find(".frame").hidden = true;
    this.find(".no-preview").hidden = false;
  }

  busy(text) {
    this.node.classList.add("busy");
    this.node.setAttribute("aria-busy", "true");
    this.find(".again").hidden = true;
    this.show([element("h2", "", text)], []);
  }

  show(parts, rows) {
    this.find(".verdict").replaceChildren(...parts);
    this.find(".labels").replaceChildren(...rows);
  }

  settle() {
    this.node.classList.remove("busy");
    this.node.removeAttribute("aria-busy");
  }

  async classify() {
    this.busy(say("Classifying…"));
    try {
      const limit = about.limits.bytes;
      if (limit && this.file.size > limit) {
        const size = Number((limit / 2 ** 20).toPrecision(3)).toLocaleString(language);
        throw new Problem(say("The file is too large: the limit is {size} MiB.", { size }));
      }
      const answer = await call(`/v1/predict?${whereAndWhen()}`, this.file, (seconds) =>
        this.busy(say("The server is busy; next attempt in {seconds} s…", { seconds })));
      this.photo = answer.photos[0];
      this.show(verdict(this.photo), this.photo.labels.map(labelRow));
      this.find(".show-heat").hidden = !about.offers.heat_map;
      this.find(".show-similar").hidden = !about.offers.similar;
      return summaryText(this.photo);
    } catch (problem) {
      return this.fail(problem);
    } finally {
      this.settle();
    }
  }

  fail(problem) {
    const message = problem instanceof Problem ? problem.message : say("This page has failed: reload it.");
    const shown = element("p", "problem", message);
    if (problem.inEnglish) shown.lang = "en";
    this.show([element("h2", "", say("No answer")), shown], []);
    this.find(".again").hidden = !(problem.canRetry || problem.keyNeeded);
    if (problem.keyNeeded) askForKey();
    return say("No answer: {why}", { why: message });
  }

  async toggleHeat() {
    const heat = this.find(".heat");
    const button = this.find(".show-heat");
    const on = button.getAttribute("aria-pressed") !== "true";
    if (on && !heat.src) {
      const taxon = encodeURIComponent(this.photo.labels[0].taxon_id);
      const map = await this.fetchMore(button, `/v1/heat-map?taxon_id=${taxon}`);
      if (!map) return;
      const [left, top, width, height] = map.box;
      Object.assign(heat.style, {
        left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%`,
      });
      heat.src = map.overlay;
      heat.alt = say("Warm colours mark the parts of the photo that support the answer");
    }
    heat.hidden = !on;
    button.setAttribute("aria-pressed", String(on));
  }

  async toggleSimilar() {
    const place = this.find(".similar");
    const button = this.find(".show-similar");
    const on = button.getAttribute("aria-expanded") !== "true";
    if (on && !place.hasChildNodes()) {
      const answer = await this.fetchMore(button, "/v1/similar?count=6");
      if (!answer) return;
      const list = element("ul", "", ...answer.photos[0].similar.map(similarPhoto));
      place.replaceChildren(element("h3", "", say("Most similar training photos")), list);
    }
    place.hidden = !on;
    button.setAttribute("aria-expanded", String(on));
  }

  async fetchMore(button, path) {
    button.disabled = true;
    try {
      return await call(path, this.file);
    } catch (problem) {
      announce(problem.message);
      return null;
    } finally {
      button.disabled = false;
      button.focus();
    }
  }

  remove() {
    const next = this.node.nextElementSibling ?? this.node.previousElementSibling;
    const queued = waiting.indexOf(this);
    if (queued >= 0) {
      waiting.splice(queued, 1);
      requested -= 1;
    }
    URL.revokeObjectURL(this.url);
    this.node.remove();
    (next ?? byId("choose")).focus();
    announce(say("{name} removed.", this.file));
  }
}

function similarPhoto(each) {
  const shown = element("li", "");
  if (each.thumbnail) {
    const image = element("img");
    image.src = each.thumbnail;
    image.alt = say("Training photo: {name}", { name: each.common_name || each.name });
    shown.append(image);
  }
  shown.append(element("span", "", capital(each.common_name || each.name)));
  shown.append(element("span", "quiet", say("{share} % similar", { share: Math.round(100 * each.similarity) })));
  return shown;
}

// Adding photos

function take(list) {
  const files = [...list];
  if (!files.length) return;
  const cards = files.map((file) => new Card(file));
  byId("results").prepend(...cards.map((card) => card.node));
  cards.forEach(add);
}

function add(card) {
  if (inProgress === 0 && waiting.length === 0) requested = done = 0;
  requested += 1;
  card.busy(say("Waiting…"));
  waiting.push(card);
  announceProgress("");
  next();
}

async function next() {
  if (inProgress >= CONCURRENT || !waiting.length) return;
  const card = waiting.shift();
  inProgress += 1;
  const last = await card.classify();
  inProgress -= 1;
  done += 1;
  announceProgress(requested === 1 ? last : `${card.file.name}: ${last}`);
  next();
}

function askForKey() {
  byId("key-form").hidden = false;
  byId("key").focus();
}

async function useKey(event) {
  event.preventDefault();
  key = byId("key").value.trim(); // in the memory of this page only
  if (await loadModel()) {
    byId("key-form").hidden = true;
    document.querySelectorAll(".again:not([hidden])").forEach((button) => button.click());
    byId("choose").focus();
  } else {
    announce(say("The server does not accept this key."));
    byId("key").select();
  }
}

async function loadModel() {
  try {
    about = await call("/v1/model");
  } catch (problem) {
    if (problem.keyNeeded) askForKey();
    else announce(problem.message);
    return false;
  }
  const classes = about.classes.toLocaleString(language);
  const text = about.classes === 1 ? say("Classifier: {name}, 1 class.", about) : say("Classifier: {name}, {classes} classes.", { name: about.name, classes });
  byId("about").replaceChildren(text, ...(about.test ? [" ", fromServer("span", "", about.test)] : []));
  byId("where").hidden = !about.offers.prior;
  return true;
}

function listen() {
  for (const [button, input] of [["choose", "files"], ["take", "camera"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", () => {
      take(byId(input).files);
      byId(input).value = ""; // so that the same photo can be chosen again
    });
  }
  let depth = 0;
  const over = (change) => {
    depth = Math.max(0, depth + change);
    byId("drop").classList.toggle("over", depth > 0);
  };
  document.addEventListener("dragenter", () => over(1));
  document.addEventListener("dragleave", () => over(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData?.files ?? []));
  byId("key-form").addEventListener("submit", useKey);
  byId("where").addEventListener("submit", useWhere);
  byId("where").addEventListener("input", () => byId("lon").setCustomValidity(""));
}

document.documentElement.classList.toggle("touch", navigator.maxTouchPoints > 0);
listen();
loadModel();
