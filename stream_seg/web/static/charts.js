// Small charts of the last two minutes: a line or bars, with a scale.

const SPAN_S = 120;
const STEPS = [1, 1.5, 2, 3, 4, 5, 6, 8];

function roundUp(value) {
  for (let power = 1; ; power *= 10) {
    for (const step of STEPS) if (step * power >= value) return step * power;
  }
}

/** Draw values over seconds ago, with gaps where a value is null. Colours come from the canvas's CSS and follow the theme. */
export function drawChart(canvas, secondsAgo, values, { minTop = 1, bars = false } = {}) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  if (!width) return;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const top = roundUp(Math.max(minTop, ...values.filter((value) => value !== null)));
  const x = (ago) => width - 1 - (ago / SPAN_S) * (width - 1);
  const y = (value) => height - 1 - (value / top) * (height - 14);

  context.font = `10px ${style.fontFamily}`;
  context.fillStyle = context.strokeStyle = style.borderTopColor;
  context.fillRect(0, height - 1, width, 1);
  context.globalAlpha = 0.5;
  context.fillRect(0, Math.round(y(top)), width, 1);
  context.globalAlpha = 1;
  context.fillStyle = style.outlineColor;
  context.textBaseline = "bottom";
  context.fillText(String(top), 0, Math.round(y(top)) - 1);

  context.fillStyle = context.strokeStyle = style.color;
  if (bars) {
    const barWidth = Math.max(1, width / SPAN_S - 0.5);
    values.forEach((value, i) => value && context.fillRect(x(secondsAgo[i]) - barWidth, y(value), barWidth, height - 1 - y(value)));
    return;
  }
  const segments = [[]];
  values.forEach((value, i) => (value === null ? segments.push([]) : segments.at(-1).push([x(secondsAgo[i]), y(value)])));
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  for (const segment of segments.filter((points) => points.length)) {
    const line = new Path2D();
    segment.forEach(([px, py], i) => (i ? line.lineTo(px, py) : line.moveTo(px, py)));
    if (segment.length === 1) line.lineTo(segment[0][0] + 1, segment[0][1]);
    context.stroke(line);
    line.lineTo(segment.at(-1)[0], height - 1);
    line.lineTo(segment[0][0], height - 1);
    context.globalAlpha = 0.13;
    context.fill(line);
    context.globalAlpha = 1;
  }
}
