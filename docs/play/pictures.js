// Pictures: the truth, images as pixels, what is drawn as MNIST has it, and the planes of the codes.
"use strict";

const SIDE = 28, PEN = 2.4, BOX = 20; // pixels of an image, of a pen's stroke, of the box that holds a digit

/** The truth: a grey image as it is sized, turned and coloured; bilinear, black outside. */
function rendered(image, [logSize, degrees, hue]) {
  const size = Math.exp(logSize), angle = degrees * Math.PI / 180, middle = (SIDE - 1) / 2;
  const cosine = Math.cos(angle) / size, sine = Math.sin(angle) / size;
  const pixel = (x, y) => (x < 0 || y < 0 || x >= SIDE || y >= SIDE ? 0 : image[SIDE * y + x]);
  const color = [0, 4, 2].map(offset => {
    const sixth = (((hue / 60 + offset) % 6) + 6) % 6;
    return Math.min(1, Math.max(0, Math.abs(sixth - 3) - 1));
  });
  const found = new Float32Array(3 * SIDE * SIDE);
  for (let row = 0; row < SIDE; row++) for (let column = 0; column < SIDE; column++) {
    const dx = column - middle, dy = row - middle;
    const x = cosine * dx - sine * dy + middle, y = sine * dx + cosine * dy + middle;
    const left = Math.floor(x), top = Math.floor(y), a = x - left, b = y - top;
    const value = (1 - b) * ((1 - a) * pixel(left, top) + a * pixel(left + 1, top)) +
      b * ((1 - a) * pixel(left, top + 1) + a * pixel(left + 1, top + 1));
    for (let c = 0; c < 3; c++) found[SIDE * (SIDE * c + row) + column] = value * color[c];
  }
  return found;
}

function asImage(x) {
  const image = new ImageData(SIDE, SIDE), size = SIDE * SIDE;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * x[size * c + i]);
    image.data[4 * i + 3] = 255;
  }
  return image;
}

const inRed = grey => {
  const x = new Float32Array(3 * SIDE * SIDE);
  x.set(grey);
  return x;
};
const apart = (a, b) => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0);

// --- what is drawn ---

function stroke(context, strokes, place, width) {
  context.lineJoin = context.lineCap = "round";
  context.lineWidth = width;
  for (const points of strokes) {
    context.beginPath();
    points.forEach(point => context.lineTo(...place(point)));
    if (points.length === 1) context.lineTo(...place(points[0]));
    context.stroke();
  }
}

function normalised(strokes) { // as MNIST's digits are: in a box of 20 pixels, centre of mass in the middle
  const xs = strokes.flat().map(([x]) => x), ys = strokes.flat().map(([, y]) => y);
  const ends = values => [Math.min(...values), Math.max(...values)];
  const [left, right] = ends(xs), [top, bottom] = ends(ys);
  const zoom = (BOX - PEN) / Math.max(right - left, bottom - top, 0.1);
  const centre = point => [zoom * (point[0] - (left + right) / 2) + SIDE / 2, zoom * (point[1] - (top + bottom) / 2) + SIDE / 2];
  const first = sampled(strokes, centre);
  let [mass, x, y] = [0, 0, 0];
  first.forEach((value, i) => {
    mass += value;
    x += value * ((i % SIDE) + 0.5);
    y += value * (Math.floor(i / SIDE) + 0.5);
  });
  const shift = [x, y].map(sum => Math.min(4, Math.max(-4, SIDE / 2 - sum / mass)));
  return sampled(strokes, point => centre(point).map((value, axis) => value + shift[axis]));
}

const fine = Object.assign(document.createElement("canvas"), { width: 8 * SIDE, height: 8 * SIDE });

function sampled(strokes, place) { // strokes on a grid eight times as fine, averaged; in steps of 1/255 as stored images
  const context = fine.getContext("2d", { willReadFrequently: true }), sums = new Float32Array(SIDE * SIDE);
  context.clearRect(0, 0, fine.width, fine.height);
  stroke(context, strokes, point => place(point).map(value => 8 * value), 8 * PEN);
  const alpha = context.getImageData(0, 0, fine.width, fine.height).data;
  for (let i = 0; i < fine.width * fine.height; i++) {
    sums[SIDE * Math.floor(i / fine.width / 8) + Math.floor((i % fine.width) / 8)] += alpha[4 * i + 3];
  }
  return sums.map(sum => Math.round(sum / 64) / 255);
}

// --- planes ---

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const backgrounds = new Map(); // canvas of a plane ↦ its dots, drawn once for each size and theme

function background(canvas, plane, hues) {
  const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)), key = `${side} ${colour("--card")}`;
  if (backgrounds.get(canvas)?.key === key) return backgrounds.get(canvas).picture;
  const picture = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const context = picture.getContext("2d");
  context.fillStyle = colour("--card");
  context.fillRect(0, 0, side, side);
  context.globalAlpha = 0.55;
  plane.dots.forEach(([x, y], i) => {
    context.fillStyle = plane.coloured ? `hsl(${hues[i]} 85% 52%)` : colour("--dot");
    context.beginPath();
    context.arc(side * x, side * (1 - y), side / 150, 0, 7);
    context.fill();
  });
  backgrounds.set(canvas, { key, picture });
  return picture;
}

/** Dots, the path of the codes, and a ring where the code is now. */
function drawPlane(canvas, plane, hues, codes, now) {
  const dots = background(canvas, plane, hues), side = dots.width;
  if (!side) return;
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const place = code => plane.directions.map((direction, axis) => {
    const along = direction.reduce((sum, weight, i) => sum + weight * code[i], plane.offset[axis]);
    return side * (axis ? 1 - along : along);
  });
  const path = codes.map(place), unit = side / 260;
  context.drawImage(dots, 0, 0);
  context.lineJoin = context.lineCap = "round";
  for (const [style, width] of [["--card", 6], ["--path", 2.5]]) {
    context.strokeStyle = colour(style);
    context.lineWidth = width * unit;
    context.beginPath();
    path.forEach(point => context.lineTo(...point));
    context.stroke();
  }
  context.fillStyle = colour("--path");
  for (const point of path) {
    context.beginPath();
    context.arc(...point, 3 * unit, 0, 7);
    context.fill();
  }
  const here = place(now);
  for (const [style, width] of [["--card", 7], ["--accent", 3.5]]) {
    context.strokeStyle = colour(style);
    context.lineWidth = width * unit;
    context.beginPath();
    context.arc(...here, 7 * unit, 0, 7);
    context.stroke();
  }
}
