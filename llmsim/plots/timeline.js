"use strict";
// Draws the timeline that is in the element "data" on a canvas. Times are seconds; `view` is what the canvas shows.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("canvas");
  const tip = document.getElementById("tip");
  const pen = canvas.getContext("2d");
  const LEFT = 84, RIGHT = 64, TOP = 4, AXIS = 34;
  const FONT = '12px "DejaVu Sans", Verdana, Arial, sans-serif';
  const layers = [data.boxes, data.transfers, data.kernels];
  const view = { low: data.start, high: data.end };
  let width = 0, rowHeight = 0, waiting = null, queued = false;

  // Each layer is a set of equally long columns sorted by row and start. `from[r]` is where row r begins, `longest`
  // how far before the view a box that reaches into it can start.
  for (const layer of layers) {
    const count = layer.row.length;
    layer.from = new Int32Array(data.rows.length + 1);
    for (let i = 0; i < count; i++) layer.from[layer.row[i] + 1]++;
    for (let r = 0; r < data.rows.length; r++) layer.from[r + 1] += layer.from[r];
    layer.longest = 0;
    let total = 0;
    for (let i = 0; i < count; i++) {
      layer.longest = Math.max(layer.longest, layer.end[i] - layer.start[i]);
      total += layer.end[i] - layer.start[i];
    }
    layer.mean = count ? total / count : 0;
  }

  function seconds(value, span) {
    const units = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
    const size = Math.abs(span === undefined ? value : span);
    const [scale, unit] = units.find(([s]) => size >= s) || (size > 0 ? units[3] : units[0]);
    return { scale, unit, text: `${Number((value / scale).toPrecision(6))} ${unit}` };
  }

  const x = (time) => LEFT + (time - view.low) / (view.high - view.low) * (width - LEFT - RIGHT);
  const timeAt = (px) => view.low + (px - LEFT) / (width - LEFT - RIGHT) * (view.high - view.low);

  function firstFrom(layer, row, time) {
    let low = layer.from[row], high = layer.from[row + 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (layer.start[middle] < time) low = middle + 1; else high = middle;
    }
    return low;
  }

  function* visible(layer, row) {
    const end = layer.from[row + 1];
    for (let i = firstFrom(layer, row, view.low - layer.longest); i < end && layer.start[i] < view.high; i++)
      if (layer.end[i] > view.low) yield i;
  }

  const strip = () => data.transfers.row.length > 0;
  const boxTop = (row) => TOP + row * rowHeight + rowHeight * 0.08;
  const boxHeight = () => rowHeight * (strip() ? 0.66 : 0.84);
  const stripTop = (row) => TOP + row * rowHeight + rowHeight * 0.79;
  const stripHeight = () => rowHeight * 0.16;

  function place(i) {
    const half = data.boxes.half[i], height = boxHeight();
    return { top: boxTop(data.boxes.row[i]) + (half === 2 ? height / 2 : 0), height: half ? height / 2 : height };
  }

  function draw() {
    queued = false;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.font = FONT;
    const bottom = TOP + data.rows.length * rowHeight;
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, width - LEFT - RIGHT, bottom + 1);
    pen.clip();
    let shown = 0;
    for (let row = 0; row < data.rows.length; row++) shown += drawRow(row);
    pen.restore();
    drawLabels();
    drawAxis(bottom);
    const span = view.high - view.low;
    document.getElementById("status").textContent =
      `${shown.toLocaleString("en")} of ${data.boxes.row.length.toLocaleString("en")} boxes, ` +
      `${seconds(view.low, span).text} to ${seconds(view.high, span).text}`;
  }

  function drawRow(row) {
    pen.fillStyle = waiting;
    for (const [low, high] of data.windows) pen.fillRect(x(low), boxTop(row), x(high) - x(low), boxHeight());
    let shown = 0;
    for (const i of visible(data.boxes, row)) {
      const a = x(data.boxes.start[i]), b = x(data.boxes.end[i]), { top, height } = place(i);
      const look = data.looks[data.boxes.look[i]];
      pen.fillStyle = look.colour;
      pen.fillRect(a, top, Math.max(b - a - (b - a > 4 ? 1 : 0), 0.4), height);
      const number = data.boxes.micro_batch[i];
      if (number >= 0 && height > 9 && !look.quiet && b - a > 8 * String(number).length + 5) {
        pen.fillStyle = look.ink;
        pen.textAlign = "center";
        pen.textBaseline = "middle";
        pen.fillText(number, (Math.max(a, LEFT) + Math.min(b, width - RIGHT)) / 2, top + height / 2 + 0.5);
      }
      shown++;
    }
    drawKernels(row);
    pen.fillStyle = data.transfer_colour;
    for (const i of visible(data.transfers, row)) {
      const a = x(data.transfers.start[i]);
      if (data.transfers.share) pen.globalAlpha = 0.25 + 0.75 * data.transfers.share[i];
      pen.fillRect(a, stripTop(row), Math.max(x(data.transfers.end[i]) - a, 0.1), stripHeight());
    }
    pen.globalAlpha = 1;
    return shown;
  }

  function drawKernels(row) {
    const layer = data.kernels;
    if (layer.mean / (view.high - view.low) * (width - LEFT - RIGHT) < 3) return;
    pen.fillStyle = "rgba(255, 255, 255, 0.75)";
    for (const i of visible(layer, row)) pen.fillRect(x(layer.end[i]) - 0.5, boxTop(row) + boxHeight() * 0.72, 1, boxHeight() * 0.28);
  }

  function drawLabels() {
    pen.textBaseline = "middle";
    const step = Math.max(1, Math.ceil(13 / rowHeight));
    for (let row = 0; row < data.rows.length; row += step) {
      const y = boxTop(row) + boxHeight() / 2;
      pen.fillStyle = "#222";
      pen.textAlign = "right";
      pen.fillText(data.rows[row].label, LEFT - 8, y);
      pen.fillStyle = "#6b6b6b";
      pen.textAlign = "left";
      pen.fillText(`${(100 * data.rows[row].bubble).toFixed(1)}%`, width - RIGHT + 8, y);
    }
  }

  function drawAxis(bottom) {
    const span = view.high - view.low, { scale, unit } = seconds(span);
    const rough = span / scale / Math.max(2, (width - LEFT - RIGHT) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((f) => f >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    pen.strokeStyle = pen.fillStyle = "#6b6b6b";
    pen.fillRect(LEFT, bottom + 1, width - LEFT - RIGHT, 1);
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let k = Math.ceil(view.low / scale / step); k * step * scale <= view.high; k++) {
      const px = x(k * step * scale);
      pen.fillRect(px, bottom + 1, 1, 5);
      pen.fillStyle = "#222";
      pen.fillText((k * step).toFixed(digits), px, bottom + 9);
      pen.fillStyle = "#6b6b6b";
    }
    pen.textAlign = "left";
    pen.fillText(`time (${unit})`, 4, bottom + 9);
    pen.fillText("bubble", width - RIGHT + 8, bottom + 9);
  }

  function find(px, py) {
    const row = Math.floor((py - TOP) / rowHeight);
    if (row < 0 || row >= data.rows.length || px < LEFT || px > width - RIGHT) return null;
    const time = timeAt(px), slack = 1.5 / (width - LEFT - RIGHT) * (view.high - view.low);
    const inStrip = strip() && py >= stripTop(row) - rowHeight * 0.03;
    const layer = inStrip ? data.transfers : data.boxes;
    let best = null, distance = slack;
    for (let i = firstFrom(layer, row, time - layer.longest - slack); i < layer.from[row + 1]; i++) {
      if (layer.start[i] > time + slack) break;
      if (!inStrip && (py < place(i).top || py > place(i).top + place(i).height)) continue;
      const off = Math.max(layer.start[i] - time, time - layer.end[i], 0);
      if (off < distance || (off === 0 && best === null)) { best = i; distance = off; }
    }
    if (best !== null) return { layer, index: best, row, time };
    return inStrip ? null : { layer: null, row, time };
  }

  function kernelAt(row, time) {
    const layer = data.kernels;
    for (let i = firstFrom(layer, row, time - layer.longest); i < layer.from[row + 1] && layer.start[i] <= time; i++)
      if (layer.end[i] >= time) return data.names[layer.name[i]];
    return null;
  }

  function describe(hit) {
    const place = data.rows[hit.row], lines = [];
    let title = "waiting";
    if (hit.layer === null) {
      if (!data.windows.some(([low, high]) => hit.time >= low && hit.time <= high)) return null;
      return [title, `stage       ${place.stage} (rank ${place.rank})`];
    }
    const { layer, index } = hit;
    const moved = layer === data.transfers;
    const [start, end, again] = (!moved && layer.whole[index]) || [layer.start[index], layer.end[index], 0];
    title = again ? "backward, with recompute" : moved ? data.names[layer.name[index]] : data.looks[layer.look[index]].name;
    lines.push(`stage       ${place.stage} (rank ${place.rank}${place.ranks > 1 ? `, one of ${place.ranks} alike` : ""})`);
    if (layer.micro_batch[index] >= 0) lines.push(`micro-batch ${layer.micro_batch[index]}`);
    if (layer.chunk[index] >= 0 && data.chunks > 1) lines.push(`chunk       ${layer.chunk[index]}`);
    lines.push(`start       ${seconds(start, data.end - data.start).text}`, `end         ${seconds(end, data.end - data.start).text}`);
    lines.push(`duration    ${seconds(end - start).text}`);
    if (again) lines.push(`recompute   ${seconds(again).text} of it, drawn first`);
    if (moved && layer.bytes[index] > 0) lines.push(`bytes       ${Number((layer.bytes[index] / 1e6).toPrecision(4))} MB`);
    if (moved && layer.share) lines.push(`busy        ${(100 * layer.share[index]).toFixed(1)}% of this time`);
    const kernel = moved ? null : kernelAt(hit.row, hit.time);
    if (kernel) lines.push(`kernel      ${kernel}`);
    return [title, ...lines];
  }

  function hover(event) {
    const box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    const hit = find(px, py), text = hit && describe(hit);
    if (!text) { tip.style.display = "none"; return; }
    tip.replaceChildren();
    const title = document.createElement("b");
    title.textContent = text[0];
    const body = document.createElement("span");
    body.style.fontFamily = "DejaVu Sans Mono, monospace";
    body.textContent = text.slice(1).join("\n");
    tip.append(title, body);
    tip.style.display = "block";
    const right = px + 18 + tip.offsetWidth > width;
    tip.style.left = `${right ? Math.max(0, px - 14 - tip.offsetWidth) : px + 16}px`;
    tip.style.top = `${py + 18}px`;
  }

  function show(low, high) {
    const whole = data.end - data.start, span = Math.min(whole, Math.max(high - low, whole * 1e-9, 1e-12));
    view.low = Math.min(Math.max(data.start, low), data.end - span);
    view.high = view.low + span;
    if (!queued) { queued = true; requestAnimationFrame(draw); }
  }

  function zoom(factor, time) {
    show(time - (time - view.low) * factor, time + (view.high - time) * factor);
  }

  const pan = (share) => show(view.low + share * (view.high - view.low), view.high + share * (view.high - view.low));

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const line = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) * line / 1000);
    else zoom(Math.exp(event.deltaY * line * 0.0015), timeAt(event.clientX - canvas.getBoundingClientRect().left));
  }, { passive: false });
  let grabbed = null;
  canvas.addEventListener("pointerdown", (event) => { grabbed = { at: event.clientX, low: view.low, high: view.high }; });
  window.addEventListener("pointerup", () => { grabbed = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (grabbed === null) { hover(event); return; }
    tip.style.display = "none";
    const moved = (event.clientX - grabbed.at) / (width - LEFT - RIGHT) * (grabbed.high - grabbed.low);
    show(grabbed.low - moved, grabbed.high - moved);
  });
  canvas.addEventListener("pointerleave", () => { tip.style.display = "none"; });
  canvas.addEventListener("dblclick", () => show(data.start, data.end));
  canvas.addEventListener("keydown", (event) => {
    const middle = (view.low + view.high) / 2;
    const actions = {
      "+": () => zoom(0.7, middle), "=": () => zoom(0.7, middle), "-": () => zoom(1 / 0.7, middle),
      ArrowLeft: () => pan(-0.15), ArrowRight: () => pan(0.15), 0: () => show(data.start, data.end),
    };
    if (actions[event.key]) { actions[event.key](); event.preventDefault(); }
  });

  function resize() {
    const ratio = window.devicePixelRatio || 1;
    width = canvas.parentElement.clientWidth;
    const room = Math.max(240, window.innerHeight - 150);
    rowHeight = Math.min(56, Math.max(8, room / Math.max(1, data.rows.length)));
    const height = TOP + data.rows.length * rowHeight + AXIS;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    waiting = hatch();
    draw();
  }

  function hatch() {
    const tile = document.createElement("canvas"), size = 8;
    tile.width = tile.height = size;
    const ink = tile.getContext("2d");
    ink.fillStyle = "#fafafa";
    ink.fillRect(0, 0, size, size);
    ink.strokeStyle = "#c9c9c9";
    ink.beginPath();
    for (const shift of [-size, 0, size]) { ink.moveTo(shift, size); ink.lineTo(shift + size, 0); }
    ink.stroke();
    return pen.createPattern(tile, "repeat");
  }

  for (const entry of data.legend) {
    const item = document.createElement("span");
    item.textContent = entry.name;
    if (entry.colour) item.style.setProperty("--ink", entry.colour);
    if (entry.other) { item.style.setProperty("--other", entry.other); item.className = "pair"; }
    if (entry.waiting) item.className = "waiting";
    document.getElementById("legend").append(item);
  }
  window.addEventListener("resize", resize);
  resize();
})();
