// Every ordered pair as a cell: the row's node about the column's. Large cells have shapes; where the cells are too
// small for that, the text beside the cursor and the list of unwell pairs say in words what the colours say.

import { $, text } from "./dom.js";
import { PAIRS, millis, quality, seconds } from "./model.js";

const SHAPES = 8;   // pixels of a cell that has room for a shape

export class Matrix {
  constructor(onPick, ageOf) {
    this.canvas = $("matrix");
    this.onPick = onPick;
    this.ageOf = ageOf;
    this.cursor = [0, 1];
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    const under = (event) => {
      if (!this.model) return;
      const box = this.canvas.getBoundingClientRect(), n = this.model.nodes.length;
      const at = (value, size) => Math.min(n - 1, Math.max(0, Math.floor(((value / size) * this.side - this.margin) / this.cell)));
      this.cursor = [at(event.clientY - box.top, box.height), at(event.clientX - box.left, box.width)];
      this.draw(this.model);
    };
    this.canvas.addEventListener("pointermove", under);
    this.canvas.addEventListener("click", (event) => { under(event); this.pick(); });
    new ResizeObserver(() => this.model && this.draw(this.model)).observe(this.canvas);
  }

  pick() {
    const node = this.model?.nodes[this.cursor[0]];
    if (node) this.onPick(node.name);
  }

  key(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Enter") this.pick();
    else if (step && this.model) {
      const n = this.model.nodes.length;
      this.cursor = this.cursor.map((it, axis) => Math.min(n - 1, Math.max(0, it + step[axis])));
      this.draw(this.model);
    } else return;
    event.preventDefault();
  }

  draw(model) {
    this.model = model;
    const canvas = this.canvas, n = model.nodes.length, width = canvas.clientWidth;
    if (width === 0) return;
    if (!model.pairs.rows) return text($("matrix-cell"), "There are more nodes than the matrix has room for: the list of unwell pairs has those that matter.");
    const ratio = window.devicePixelRatio || 1;
    this.side = width;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = canvas.height = Math.round(width * ratio);
    const ctx = canvas.getContext("2d");
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, width);
    this.margin = n <= 40 && width > 300 ? Math.min(110, width / 4) : 0;
    this.cell = (width - this.margin) / Math.max(1, n);
    const style = getComputedStyle(document.documentElement);
    const color = Object.fromEntries([["w", "--good"], ["l", "--accent"], ["d", "--bad"], ["f", "--warn"], ["?", "--off"], ["text", "--text"], ["line", "--line"]].map(([key, name]) => [key, style.getPropertyValue(name).trim()]));
    if (this.cell >= SHAPES) this.shapes(ctx, model, color);
    else this.pixels(ctx, model, color);
    const [row, column] = this.cursor;
    if (row < n && column < n) {
      ctx.strokeStyle = color.text;
      ctx.lineWidth = 2;
      const size = Math.max(this.cell, 6);
      ctx.strokeRect(this.margin + column * this.cell - (size - this.cell) / 2, this.margin + row * this.cell - (size - this.cell) / 2, size, size);
      text($("matrix-cell"), this.words(model, row, column));
    }
  }

  words(model, row, column) {
    const [a, b] = [model.nodes[row], model.nodes[column]];
    if (row === column) return `${a.name}: ${a.member ? "a member" : "no member"}`;
    const link = model.link(a.at, b.at);
    const details = link ? `: epoch ${link.session_epoch ?? "–"}, ${quality(link)}, ${millis(link.rtt_v4_ms ?? link.rtt_v6_ms)}, reported ${seconds(this.ageOf(link.at_utc))} ago` : "";
    return `${a.name} → ${b.name}: ${PAIRS[model.letter(a.at, b.at)]}${details}`;
  }

  shapes(ctx, model, color) {
    const { cell, margin } = this, mid = cell / 2, r = Math.min(cell * 0.32, 9);
    ctx.font = `${Math.min(12, cell)}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    model.nodes.forEach((a, row) => {
      const y = margin + row * cell;
      if (margin > 0) {
        ctx.fillStyle = color.text;
        ctx.textAlign = "right";
        ctx.fillText(fit(ctx, a.name, margin - 10), margin - 6, y + mid);
        ctx.save();
        ctx.translate(y + mid, margin - 6);
        ctx.rotate(-Math.PI / 2);
        ctx.textAlign = "left";
        ctx.fillText(fit(ctx, a.name, margin - 10), 0, 0);
        ctx.restore();
      }
      model.nodes.forEach((b, column) => {
        const letter = row === column ? "" : model.letter(a.at, b.at), x = margin + column * cell;
        ctx.strokeStyle = color.line;
        ctx.lineWidth = 1;
        ctx.strokeRect(x, y, cell, cell);
        if (!letter || letter === "-") return;
        ctx.fillStyle = ctx.strokeStyle = color[letter];
        ctx.beginPath();
        if (letter === "w") { ctx.arc(x + mid, y + mid, r, 0, 7); ctx.fill(); }
        else if (letter === "?") { ctx.arc(x + mid, y + mid, r * 0.5, 0, 7); ctx.stroke(); }
        else if (letter === "l") ctx.fillRect(x + mid - r, y + mid - r * 0.35, 2 * r, r * 0.7);
        else if (letter === "f") { ctx.moveTo(x + mid, y + mid - r); ctx.lineTo(x + mid + r, y + mid + r); ctx.lineTo(x + mid - r, y + mid + r); ctx.fill(); }
        else { ctx.lineWidth = Math.max(2, r * 0.45); ctx.moveTo(x + mid - r, y + mid - r); ctx.lineTo(x + mid + r, y + mid + r); ctx.moveTo(x + mid + r, y + mid - r); ctx.lineTo(x + mid - r, y + mid + r); ctx.stroke(); }
      });
    });
  }

  /** A pixel for each cell, scaled up: 90,000 of them in a few milliseconds. */
  pixels(ctx, model, color) {
    const n = model.nodes.length, image = new ImageData(n, n);
    const colors = Object.fromEntries(["w", "l", "d", "f", "?"].map((letter) => [letter, [...rgb(color[letter]), letter === "w" ? 110 : letter === "?" ? 60 : 255]]));
    let at = 0;
    for (const a of model.nodes) {
      const row = model.pairs.rows[a.at] ?? "";
      for (const b of model.nodes) {
        const it = a === b ? undefined : colors[row[b.at]];
        if (it) image.data.set(it, at);
        at += 4;
      }
    }
    const small = new OffscreenCanvas(n, n);
    small.getContext("2d").putImageData(image, 0, 0);
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(small, this.margin, this.margin, this.cell * n, this.cell * n);
  }
}

function rgb(hex) {
  const value = parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function fit(ctx, name, width) {
  if (ctx.measureText(name).width <= width) return name;
  let cut = name;
  while (cut.length > 1 && ctx.measureText(`${cut}…`).width > width) cut = cut.slice(0, -1);
  return `${cut}…`;
}
