"use strict";

// Tables: a click on a header sorts by that column, a second click reverses; rows without a value stay last.

function sortBy(header) {
  const ascending = header.getAttribute("aria-sort") !== "ascending";
  const column = header.cellIndex;
  const numbers = header.classList.contains("number");
  const value = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    const x = value(a), y = value(b);
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    const order = numbers ? Math.sign(Number(x) - Number(y)) || 0 : x.localeCompare(y, undefined, { numeric: true });
    return ascending ? order : -order;
  };
  for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const body = header.closest("table").tBodies[0];
  body.append(...[...body.rows].sort(compare));
}

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

// Images. The value of the slider is the percentage of the visible part, from the left, that shows the input.

class Pair {
  constructor(figure) {
    this.view = figure.querySelector(".view");
    this.stack = figure.querySelector(".stack");
    this.before = figure.querySelector(".before");
    this.slider = figure.querySelector("input");
    this.buttons = [...figure.querySelectorAll(".zoom button")];
    this.slider.addEventListener("input", () => this.cut());
    this.view.addEventListener("scroll", () => this.cut());
    this.view.addEventListener("pointerdown", (event) => this.grab(event));
    for (const button of this.buttons) button.addEventListener("click", () => this.zoom(button.value));
    this.cut();
  }

  get visible() {
    return Math.min(this.view.clientWidth, this.stack.offsetWidth);
  }

  cut() {
    let percent = Number(this.slider.value);
    if (this.view.dataset.zoom !== "fit") {
      percent = (100 * this.view.scrollLeft + percent * this.visible) / this.stack.offsetWidth;
    }
    this.stack.style.setProperty("--cut", `${percent}%`);
    this.slider.setAttribute("aria-valuetext", `${Math.round(this.slider.value)} % input`);
  }

  // The factor is the number of screen pixels for each pixel of the image.
  zoom(factor) {
    const { view } = this;
    const x = (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth;
    const y = (view.scrollTop + view.clientHeight / 2) / view.scrollHeight;
    view.dataset.zoom = factor;
    const width = (Number(this.before.getAttribute("width")) * factor) / devicePixelRatio;
    this.before.style.width = factor === "fit" ? "" : `${width}px`;
    view.scrollLeft = x * view.scrollWidth - view.clientWidth / 2;
    view.scrollTop = y * view.scrollHeight - view.clientHeight / 2;
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.value === factor));
    this.cut();
  }

  // Drag the divider; in an image larger than its frame the mouse pans, and a finger scrolls by itself.
  grab(event) {
    const { view, stack } = this;
    if (event.button !== 0 || !event.target.closest(".stack")) return;
    const larger = view.scrollWidth > view.clientWidth || view.scrollHeight > view.clientHeight;
    const panning = larger && !event.target.closest(".handle");
    if (panning && event.pointerType !== "mouse") return;
    const start = { x: view.scrollLeft + event.clientX, y: view.scrollTop + event.clientY };
    const move = (now) => {
      if (panning) {
        view.scrollTo(start.x - now.clientX, start.y - now.clientY);
        return;
      }
      const left = Math.max(view.getBoundingClientRect().left, stack.getBoundingClientRect().left);
      this.slider.value = (100 * (now.clientX - left)) / this.visible;
      this.cut();
    };
    const done = new AbortController();
    const end = () => {
      view.classList.remove("panning");
      done.abort();
    };
    view.setPointerCapture(event.pointerId);
    view.classList.toggle("panning", panning);
    view.addEventListener("pointermove", move, { signal: done.signal });
    view.addEventListener("pointerup", end, { signal: done.signal });
    view.addEventListener("pointercancel", end, { signal: done.signal });
    if (!panning) move(event);
  }
}

const pairs = [...document.querySelectorAll("figure:has(.stack)")].map((figure) => new Pair(figure));

// The ratio of pixels changes when a window moves to another screen.
addEventListener("resize", () => {
  for (const pair of pairs) if (pair.view.dataset.zoom !== "fit") pair.zoom(pair.view.dataset.zoom);
});
