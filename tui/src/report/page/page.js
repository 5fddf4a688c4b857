// What a page does when it is touched: a click on a candidate opens it, a drag along an axis keeps who passes there.
"use strict";
(() => {
  const drawer = document.getElementById("drawer");
  const others = JSON.parse(document.getElementById("others").textContent);
  const element = (name, text, within) => {
    const made = document.createElement(name);
    made.textContent = text;
    within.append(made);
    return made;
  };

  const show = (number) => {
    const card = document.getElementById("c" + number);
    const other = others.of[number];
    drawer.replaceChildren();
    const close = element("button", "close", drawer);
    close.className = "close";
    close.addEventListener("click", () => drawer.close());
    if (card) {
      const copy = card.cloneNode(true);
      copy.removeAttribute("id");
      drawer.append(copy);
    } else if (other) {
      const body = element("div", "", drawer);
      body.className = "open";
      element("h3", "Candidate " + number, body);
      const values = element("dl", "", body);
      values.className = "values";
      for (const line of other[1].split("\n")) {
        const cut = line.indexOf(": ");
        const pair = element("div", "", values);
        element("dt", line.slice(0, cut), pair);
        element("dd", line.slice(cut + 2), pair);
      }
      element("pre", other[0], body);
      const commands = ["show", "export"].map((word) => "deltafront " + word + others.name + " " + number);
      element("pre", commands.join("\n"), body).className = "commands";
    } else {
      return false;
    }
    drawer.showModal();
    return true;
  };

  document.addEventListener("click", (event) => {
    const from = event.target.closest("[data-n]");
    if (from) {
      if (show(from.dataset.n)) event.preventDefault();
    } else if (event.target === drawer) {
      drawer.close();
    }
  });

  // Brushes: for each axis the part of it that is kept, in the coordinates of the drawing.
  const plot = document.querySelector("#figure-parallel-coordinates svg");
  if (plot) {
    const kept = new Map();
    const threads = [...plot.querySelectorAll(".thread")];
    const heights = threads.map((thread) =>
      thread.getAttribute("d").slice(1).split("L").map((point) => Number(point.split(" ")[1])));
    const update = () => {
      const out = new Set();
      threads.forEach((thread, index) => {
        const is_in = [...kept].every(([axis, [top, bottom]]) => {
          const y = heights[index][axis];
          return !(top > y) && !(y > bottom);
        });
        thread.classList.toggle("out", !is_in);
        if (!is_in) out.add(thread.dataset.n);
      });
      const drawn = document.querySelectorAll("#figure-front [data-n]");
      const known = new Set(threads.map((thread) => thread.dataset.n));
      for (const point of drawn) {
        point.classList.toggle("out", kept.size !== 0 && (out.has(point.dataset.n) || !known.has(point.dataset.n)));
        point.style.opacity = point.tagName === "a" && point.classList.contains("out") ? 0.15 : "";
      }
    };
    const height = (event) => {
      const box = plot.getBoundingClientRect();
      return ((event.clientY - box.top) * plot.viewBox.baseVal.height) / box.height;
    };
    for (const brush of plot.querySelectorAll(".brush")) {
      const axis = Number(brush.dataset.axis);
      const shade = brush.cloneNode();
      shade.setAttribute("class", "brushed");
      let from = null;
      brush.addEventListener("pointerdown", (event) => {
        from = height(event);
        brush.setPointerCapture(event.pointerId);
        event.preventDefault();
      });
      brush.addEventListener("pointermove", (event) => {
        if (from === null) return;
        const range = [from, height(event)].sort((a, b) => a - b);
        kept.set(axis, range);
        shade.setAttribute("y", range[0]);
        shade.setAttribute("height", range[1] - range[0]);
        brush.after(shade);
        update();
      });
      brush.addEventListener("pointerup", (event) => {
        if (from !== null) {
          const is_click = 3 > Math.abs(height(event) - from);
          if (is_click) {
            kept.delete(axis);
            shade.remove();
            update();
          }
        }
        from = null;
      });
    }
  }

  // On paper everything is open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details.card:not([open])")];
    for (const card of opened) card.open = true;
  });
  addEventListener("afterprint", () => {
    for (const card of opened) card.open = false;
  });
})();
