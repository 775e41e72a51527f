// Draws the confusion matrix; wheel, buttons or keys zoom, dragging moves, a pointer reads a cell.
(() => {
  const canvas = document.getElementById("matrix-canvas");
  if (!canvas) return;
  const { names, cells, words } = JSON.parse(document.getElementById("matrix-data").textContent);
  const count = names.length, totals = new Array(count).fill(0), found = new Map();
  for (const [row, column, photos] of cells) { totals[row] += photos; found.set(row * count + column, photos); }
  cells.sort((one, other) => (other[0] === other[1]) - (one[0] === one[1])); // wrong answers are drawn above right ones
  const said = document.getElementById("matrix-said"), pen = canvas.getContext("2d");
  let zoom = 1, left = 0, top = 0, at = null, from = null;
  const colour = (name) => getComputedStyle(canvas).getPropertyValue(name).trim();
  const shorten = (text, most) => { while (text.length > 1 && pen.measureText(text).width > most) text = text.slice(0, -2) + "…"; return text; };
  let side = 0, margin = 0, cell = 0;
  function draw() {
    const scale = window.devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.width = canvas.height = Math.round(width * scale);
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    margin = Math.min(150, width * 0.28); side = width - margin; cell = (side / count) * zoom;
    if (cell < 11) { margin = 52; side = width - margin; cell = (side / count) * zoom; }
    left = Math.max(0, Math.min(left, count * cell - side)); top = Math.max(0, Math.min(top, count * cell - side));
    pen.fillStyle = colour("--card"); pen.fillRect(0, 0, width, width);
    pen.save(); pen.beginPath(); pen.rect(margin, margin, side, side); pen.clip();
    for (const [row, column, photos] of cells) {
      const x = margin + column * cell - left, y = margin + row * cell - top;
      if (x + cell < margin || y + cell < margin || x > width || y > width) continue;
      pen.globalAlpha = (cell < 4 ? 0.5 : 0.2) + (cell < 4 ? 0.5 : 0.8) * (photos / totals[row]);
      pen.fillStyle = colour(row === column ? "--right" : "--wrong");
      const size = Math.max(cell - (cell > 6 ? 1 : 0), 2);
      pen.fillRect(x, y, size, size);
      pen.globalAlpha = 1;
      if (cell >= 22) { pen.fillStyle = colour("--ink"); pen.font = "12px system-ui"; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.fillText(photos, x + cell / 2, y + cell / 2); }
    }
    if (at) { pen.strokeStyle = colour("--ink"); pen.strokeRect(margin + at[1] * cell - left, margin + at[0] * cell - top, cell, cell); }
    pen.restore();
    pen.strokeStyle = colour("--line"); pen.strokeRect(margin + 0.5, margin + 0.5, side - 1, side - 1);
    pen.fillStyle = colour("--ink");
    if (cell >= 11) {
      pen.font = `${Math.min(12, cell)}px system-ui`; pen.textBaseline = "middle";
      for (let each = 0; each < count; each++) {
        const x = margin + (each + 0.5) * cell - left, y = margin + (each + 0.5) * cell - top;
        pen.textAlign = "right";
        if (y > margin && y < margin + side) pen.fillText(shorten(names[each], margin - 8), margin - 5, y);
        if (x > margin && x < margin + side) { pen.save(); pen.translate(x, margin - 5); pen.rotate(-Math.PI / 2); pen.textAlign = "left"; pen.fillText(shorten(names[each], margin - 8), 0, 0); pen.restore(); }
      }
    } else {
      pen.font = "12px system-ui"; pen.textAlign = "right"; pen.textBaseline = "top"; pen.fillText(`${words.label} ↓`, margin - 6, margin);
      pen.textAlign = "left"; pen.textBaseline = "bottom"; pen.fillText(`${words.answer} →`, margin, margin - 5);
    }
  }
  function read(row, column) {
    if (row < 0 || column < 0 || row >= count || column >= count) return;
    at = [row, column];
    const values = { label: names[row], other: names[column], some: found.get(row * count + column) || 0, all: totals[row] };
    said.textContent = words[row === column ? "right" : "wrong"][totals[row] === 1 ? 0 : 1].replace(/{(\w+)}/g, (_, name) => values[name]);
    draw();
  }
  function zoomBy(factor, x = margin + side / 2, y = margin + side / 2) {
    const next = Math.max(1, Math.min(zoom * factor, Math.max(1, (count * 40) / side))), by = next / zoom;
    left = (left + x - margin) * by - (x - margin); top = (top + y - margin) * by - (y - margin); zoom = next; draw();
  }
  const cellOf = (event) => [Math.floor((event.offsetY - margin + top) / cell), Math.floor((event.offsetX - margin + left) / cell)];
  canvas.addEventListener("wheel", (event) => { if (event.ctrlKey || document.activeElement === canvas) { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.25 : 0.8, event.offsetX, event.offsetY); } }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => { from = [event.clientX + left, event.clientY + top]; read(...cellOf(event)); });
  canvas.addEventListener("pointermove", (event) => {
    if (from && event.buttons) { left = from[0] - event.clientX; top = from[1] - event.clientY; draw(); } else if (event.pointerType === "mouse") read(...cellOf(event));
  });
  window.addEventListener("pointerup", () => { from = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) { event.preventDefault(); const [row, column] = at || [0, 0]; read(row + step[0], column + step[1]); }
    if (event.key === "+") zoomBy(1.5);
    if (event.key === "-") zoomBy(1 / 1.5);
  });
  document.getElementById("matrix-in").addEventListener("click", () => zoomBy(1.6));
  document.getElementById("matrix-out").addEventListener("click", () => zoomBy(1 / 1.6));
  document.getElementById("matrix-all").addEventListener("click", () => { zoom = 1; left = top = 0; draw(); });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.matchMedia("print").addEventListener("change", draw);
  draw();
})();
