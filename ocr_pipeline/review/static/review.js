// Hovering, keys and copying. Every way that a key goes is a link or a button on the screen: it works without this file.
"use strict";

const first = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];
const keyed = (name) => first(`[data-key="${name}"]`);

function tell(text) {
  const told = first("#told");
  told.textContent = text;
  setTimeout(() => { if (told.textContent === text) told.textContent = ""; }, 4000);
}

// ---------------------------------------------------------------------------------- regions and their text, both ways
const boxes = new Map(all("[data-region]").map((box) => [box.dataset.region, box]));
const texts = new Map();
for (const block of all("[data-regions]")) {
  for (const region of block.dataset.regions.split(" ")) texts.set(region, block);
}
const regions = [...boxes.keys()].sort((one, other) => one - other);  // as they are read; they are drawn by size
const beside = matchMedia("(min-width: 900px)");  // image and text scroll by themselves, side by side (review.css)
const show = (element) => element?.scrollIntoView({ block: "nearest" });
let fixed = null;  // the region that was chosen with a click or a key; hovering comes and goes above it

function mark(marked) {
  for (const element of all(".box.on, .block.on")) element.classList.remove("on");
  for (const region of marked) {
    boxes.get(region)?.classList.add("on");
    texts.get(region)?.classList.add("on");
  }
  const name = first("#region-name");
  if (!name) return;
  const box = marked.length ? boxes.get(marked[0]) : null;
  name.textContent = box
    ? `region ${Number(marked[0]) + 1} of ${regions.length}: ${box.dataset.label}${texts.has(marked[0]) ? "" : " (no text of its own)"}`
    : `${regions.length} region${regions.length === 1 ? "" : "s"}`;
}

function choose(region) {
  if (fixed !== null) boxes.get(fixed)?.setAttribute("aria-pressed", "false");
  fixed = region;
  mark(region === null ? [] : [region]);
  history.replaceState(null, "", region === null ? location.pathname + location.search : `#region-${region}`);
  if (region === null) return;
  boxes.get(region).setAttribute("aria-pressed", "true");
  if (beside.matches || !texts.has(region)) show(boxes.get(region));
  show(texts.get(region));
}

// One box at a time is in the order of tabs, or a page of 5,000 regions would have 5,000 stops.
function reachable(region) {
  for (const box of all('.box[tabindex="0"]')) box.setAttribute("tabindex", "-1");
  boxes.get(region)?.setAttribute("tabindex", "0");
}
if (regions.length) reachable(regions[0]);

const rest = () => mark(fixed === null ? [] : [fixed]);
for (const [region, box] of boxes) {
  box.addEventListener("mouseenter", () => { mark([region]); if (beside.matches) show(texts.get(region)); });
  box.addEventListener("mouseleave", rest);
  box.addEventListener("focus", () => { mark([region]); reachable(region); });
  box.addEventListener("blur", rest);
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose(fixed === region ? null : region);
  });
  box.addEventListener("click", () => choose(fixed === region ? null : region));
}
for (const block of new Set(texts.values())) {
  const own = block.dataset.regions.split(" ");
  block.addEventListener("mouseenter", () => { mark(own); if (beside.matches) show(boxes.get(own[0])); });
  block.addEventListener("mouseleave", rest);
}
const wanted = location.hash.match(/^#region-(\d+)$/)?.[1];
if (wanted !== undefined && boxes.has(wanted)) choose(wanted);

// ------------------------------------------------------------------------------------------------------ the page image
const image = first("[data-image]");
async function gone() {
  const note = first("[data-gone]");
  image.classList.add("lost");
  note.hidden = false;
  note.textContent = "The page image cannot be shown.";
  try {
    const answer = await fetch(image.src);
    if (!answer.ok) note.textContent = `The page image cannot be shown: ${(await answer.text()).slice(0, 200)}.`;
  } catch { /* the app itself is gone */ }
}
if (image) {
  if (image.complete && image.naturalWidth === 0) gone();
  else image.addEventListener("error", gone, { once: true });
}
first("[data-boxes]")?.addEventListener("click", (event) => {
  const shown = event.currentTarget.getAttribute("aria-pressed") !== "true";
  event.currentTarget.setAttribute("aria-pressed", String(shown));
  first(".boxes").toggleAttribute("hidden", !shown);
});
const sizes = [["", "Image: fit width"], ["whole", "Image: whole page"], ["full", "Image: full size"]];
let sized = 0;
first("[data-zoom]")?.addEventListener("click", (event) => {
  sized = (sized + 1) % sizes.length;
  first("[data-sheet]").className = `sheet ${sizes[sized][0]}`;
  event.currentTarget.textContent = sizes[sized][1];
});

// --------------------------------------------------------------------------- words of a search, marked without new HTML
const query = new URLSearchParams(location.search).get("q");
const article = first(".read");
if (query && article && window.Highlight && CSS.highlights) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean).slice(0, 16);
  const ranges = [];
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node && ranges.length < 2000; node = walker.nextNode()) {
    const text = node.data.toLowerCase();
    if (text.length !== node.data.length) continue;
    for (const word of words) {
      for (let at = text.indexOf(word); at >= 0 && ranges.length < 2000; at = text.indexOf(word, at + word.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, at + word.length);
        ranges.push(range);
      }
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
  ranges[0]?.startContainer.parentElement?.scrollIntoView({ block: "nearest" });
}

// ----------------------------------------------------------------------------------------------------- copying, lists
async function copy() {
  try {
    await navigator.clipboard.writeText(location.href);
    tell("Link copied");
  } catch {
    tell(`Copy it from here: ${location.href}`);
  }
}
first("[data-copies]")?.addEventListener("click", copy);

const rows = all("table[data-rows] tbody tr, ol[data-rows] li");
let row = -1;
function step(by) {
  if (regions.length) {
    const at = fixed === null ? (by > 0 ? -1 : regions.length) : regions.indexOf(fixed);
    choose(regions[Math.min(regions.length - 1, Math.max(0, at + by))]);
    boxes.get(fixed).focus({ preventScroll: true });
  } else if (rows.length) {
    rows[row]?.classList.remove("here");
    row = Math.min(rows.length - 1, Math.max(0, row + by));
    rows[row].classList.add("here");
    const link = rows[row].querySelector("a.name");
    link?.focus({ preventScroll: true });
    rows[row].scrollIntoView({ block: "nearest" });
  }
}

// ---------------------------------------------------------------------------------------------------------------- keys
const dialog = first("#keys");
function failed(key, none) {
  if (keyed(key)) keyed(key).click();
  else if (keyed("up")) tell(none);  // a document or a page
  else location.href = "/pages?status=failed%2Cskipped";
}
first('[data-opens="keys"]').addEventListener("click", () => dialog.showModal());
const keys = {
  "/": () => { keyed("search").focus(); keyed("search").select(); },
  "1": () => { location.href = "/documents"; },
  "2": () => { location.href = "/pages"; },
  "3": () => { location.href = "/overview"; },
  "j": () => step(1),
  "k": () => step(-1),
  "n": () => keyed("next")?.click(),
  "p": () => keyed("previous")?.click(),
  "ArrowRight": () => keyed("next")?.click(),
  "ArrowLeft": () => keyed("previous")?.click(),
  "f": () => failed("next-failed", "No failed page after this one"),
  "F": () => failed("previous-failed", "No failed page before this one"),
  "t": () => keyed("text")?.click(),
  "w": () => keyed("raw")?.click(),
  "a": () => keyed("attempts")?.click(),
  "b": () => first("[data-boxes]")?.click(),
  "z": () => first("[data-zoom]")?.click(),
  "c": copy,
  "u": () => keyed("up")?.click(),
  "Escape": () => { if (fixed !== null) choose(null); },
  "?": () => dialog.showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || dialog.open) return;
  if (event.target.closest("input, select, textarea, [contenteditable]")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const scrolls = event.key.startsWith("Arrow") && !event.target.closest("[data-region]") && event.target.closest("[tabindex='0']");
  const work = keys[event.key];
  if (work && !scrolls) {
    event.preventDefault();
    work();
  }
});
