// A small chart: one line over the last minutes, its scale, nothing else.

const SPAN_S = 120;
const STEPS = [1, 1.5, 2, 3, 4, 5, 6, 8];

function ceiling(value) {
  for (let power = 1; ; power *= 10) {
    for (const step of STEPS) if (step * power >= value) return step * power;
  }
}

/** Draw values against seconds ago; a gap where a value is null. Colours are the canvas's own, so they follow the theme. */
export function draw(canvas, secondsAgo, values, { least = 1, bars = false } = {}) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  if (!width) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ink = canvas.getContext("2d");
  ink.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const top = ceiling(Math.max(least, ...values.filter((value) => value !== null)));
  const x = (ago) => width - 1 - (ago / SPAN_S) * (width - 1);
  const y = (value) => height - 1 - (value / top) * (height - 14);

  ink.font = `10px ${style.fontFamily}`;
  ink.fillStyle = ink.strokeStyle = style.borderTopColor;
  ink.fillRect(0, height - 1, width, 1);
  ink.globalAlpha = 0.5;
  ink.fillRect(0, Math.round(y(top)), width, 1);
  ink.globalAlpha = 1;
  ink.fillStyle = style.outlineColor;
  ink.textBaseline = "bottom";
  ink.fillText(String(top), 0, Math.round(y(top)) - 1);

  ink.fillStyle = ink.strokeStyle = style.color;
  if (bars) {
    const wide = Math.max(1, width / SPAN_S - 0.5);
    values.forEach((value, i) => value && ink.fillRect(x(secondsAgo[i]) - wide, y(value), wide, height - 1 - y(value)));
    return;
  }
  const runs = [[]];
  values.forEach((value, i) => (value === null ? runs.push([]) : runs.at(-1).push([x(secondsAgo[i]), y(value)])));
  ink.lineWidth = 1.5;
  ink.lineJoin = "round";
  for (const run of runs.filter((points) => points.length)) {
    const line = new Path2D();
    run.forEach(([px, py], i) => (i ? line.lineTo(px, py) : line.moveTo(px, py)));
    if (run.length === 1) line.lineTo(run[0][0] + 1, run[0][1]);
    ink.stroke(line);
    line.lineTo(run.at(-1)[0], height - 1);
    line.lineTo(run[0][0], height - 1);
    ink.globalAlpha = 0.13;
    ink.fill(line);
    ink.globalAlpha = 1;
  }
}
