// Replays trajectories on top of a figure. The figure itself is a still image that needs no script;
// this adds a canvas, a button and a slider to each figure that has a <script class="ba-player">
// with: axes [left, bottom, width, height] in fractions of the image, xlim, ylim, steps (iteration
// of each frame), runs [{label, colour, points: [[x, y], …]}].

(() => {
  const FRAMES_PER_SECOND = 24;

  function attach(script) {
    const figure = document.getElementById(script.dataset.figure);
    const image = figure && figure.querySelector("img");
    if (!image) return;
    const film = JSON.parse(script.textContent);
    const last = film.steps.length - 1;

    const stage = document.createElement("div");
    stage.className = "ba-stage";
    image.replaceWith(stage);
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    stage.append(image, canvas);

    const controls = document.createElement("div");
    controls.className = "ba-controls";
    const button = document.createElement("button");
    button.type = "button";
    const slider = Object.assign(document.createElement("input"), {
      type: "range", min: 0, max: last, value: last,
    });
    slider.setAttribute("aria-label", "iteration");
    const readout = document.createElement("output");
    controls.append(button, slider, readout);
    stage.after(controls);

    let timer = null;

    function position([x, y]) {
      const box = image.getBoundingClientRect();
      const style = getComputedStyle(image);
      const pad = parseFloat(style.paddingLeft);
      const [left, bottom, width, height] = film.axes;
      const [x0, x1] = film.xlim, [y0, y1] = film.ylim;
      const w = box.width - 2 * pad, h = box.height - 2 * pad;
      return [
        pad + w * (left + (width * (x - x0)) / (x1 - x0)),
        pad + h * (1 - bottom - (height * (y - y0)) / (y1 - y0)),
      ];
    }

    function show() {
      const frame = Number(slider.value), box = image.getBoundingClientRect();
      const scale = window.devicePixelRatio || 1;
      canvas.width = box.width * scale;
      canvas.height = box.height * scale;
      canvas.style.width = `${box.width}px`;
      canvas.style.height = `${box.height}px`;
      const pen = canvas.getContext("2d");
      pen.scale(scale, scale);
      readout.textContent = `step ${film.steps[frame]}`;
      button.textContent = timer === null ? "Play" : "Pause";
      const [left, top] = position([film.xlim[0], film.ylim[1]]);
      const [right, bottom] = position([film.xlim[1], film.ylim[0]]);
      pen.beginPath();
      pen.rect(left, top, right - left, bottom - top);
      pen.clip();
      if (frame === last) return; // the still image shows the end
      pen.fillStyle = "rgba(255, 255, 255, 0.65)"; // fades the finished paths of the still image
      pen.fill();
      for (const run of film.runs) {
        pen.strokeStyle = pen.fillStyle = run.colour;
        pen.lineWidth = 2;
        pen.beginPath();
        run.points.slice(0, frame + 1).forEach((point, n) => {
          const [x, y] = position(point);
          if (n === 0) pen.moveTo(x, y); else pen.lineTo(x, y);
        });
        pen.stroke();
        pen.beginPath();
        pen.arc(...position(run.points[frame]), 5, 0, 2 * Math.PI);
        pen.fill();
        pen.strokeStyle = "#fff";
        pen.stroke();
      }
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      show();
    }

    function play() {
      if (Number(slider.value) >= last) slider.value = 0;
      timer = setInterval(() => {
        slider.value = Number(slider.value) + 1;
        if (Number(slider.value) >= last) stop(); else show();
      }, 1000 / FRAMES_PER_SECOND);
      show();
    }

    button.addEventListener("click", () => (timer === null ? play() : stop()));
    slider.addEventListener("input", () => (timer === null ? show() : stop()));
    new ResizeObserver(show).observe(image);
    show();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("script.ba-player").forEach(attach);
  });
})();
