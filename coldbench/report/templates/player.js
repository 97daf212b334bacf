// Two ways of looking at sprites by hand: a wipe between the columns of a comparison, and a trajectory step by step.
// Without this script the page shows every image as well; with it, what needs it appears.
"use strict";
(() => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // Shows tile (column, row) of a sprite that is `wide` tiles across.
  const place = (image, src, wide, column, row) => {
    if (image.getAttribute("src") !== src) image.src = src;
    image.style.setProperty("--wide", wide);
    image.style.setProperty("--column", column);
    image.style.setProperty("--row", row);
  };

  // The buttons that go from image to image, round and round; `show` draws the one that was chosen.
  const turner = (viewer, show) => {
    const count = Number(viewer.dataset.images);
    const which = viewer.querySelector(".which");
    let image = 0;
    const turn = (by) => {
      image = (image + by + count) % count;
      which.textContent = `Image ${image + 1} of ${count}`;
      show(image);
    };
    for (const button of viewer.querySelectorAll("[data-turn]")) {
      button.disabled = count < 2;
      button.addEventListener("click", () => turn(Number(button.dataset.turn)));
    }
    return turn;
  };

  const compare = (viewer) => {
    const { src, wide } = viewer.dataset;
    const names = JSON.parse(viewer.dataset.names);
    const range = viewer.querySelector("input");
    const stops = [...viewer.querySelectorAll("[data-stop]")];
    const [under, over] = viewer.querySelectorAll("img");
    const edge = viewer.querySelector(".edge");
    let row = 0;
    const draw = () => {
      const value = Number(range.value);
      const left = Math.floor(value / 100);
      const part = value % 100;
      place(under, src, wide, left, row);
      place(over, src, wide, Math.min(left + 1, names.length - 1), row);
      over.parentElement.style.clipPath = `inset(0 ${100 - part}% 0 0)`;
      edge.style.left = `${part}%`;
      edge.hidden = part === 0;
      range.setAttribute("aria-valuetext", part ? `${part} % ${names[left + 1]}, the rest ${names[left]}` : names[left]);
      for (const stop of stops) stop.setAttribute("aria-pressed", Number(stop.dataset.stop) === value);
    };
    range.addEventListener("input", draw);
    for (const stop of stops) {
      stop.addEventListener("click", () => {
        range.value = stop.dataset.stop;
        draw();
      });
    }
    turner(viewer, (image) => {
      row = image;
      draw();
    })(0);
  };

  const player = (viewer) => {
    const severities = JSON.parse(viewer.dataset.severities);
    const tracks = [...viewer.querySelectorAll("[data-src]")];
    const range = viewer.querySelector("input");
    const says = viewer.querySelector(".says");
    const play = viewer.querySelector(".play");
    const last = severities.length - 1;
    let row = 0;
    let timer = 0;
    const draw = () => {
      const step = Number(range.value);
      for (const { dataset, ...rest } of tracks.map((track) => ({ dataset: track.dataset, image: track.querySelector("img") })))
        place(rest.image, dataset.src, dataset.wide, step, row);
      says.textContent = `t = ${severities[step]}`;
      range.setAttribute("aria-valuetext", `severity ${severities[step]}, ${step + 1} of ${last + 1}`);
    };
    const stop = () => {
      clearInterval(timer);
      timer = 0;
      play.textContent = "Play";
    };
    const go = (to) => {
      range.value = Math.min(Math.max(to, 0), last);
      draw();
      if (to >= last) stop();
    };
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(range.value) === last) go(0);
      play.textContent = "Pause";
      timer = setInterval(() => go(Number(range.value) + 1), Math.max(120, 4000 / severities.length));
    });
    range.addEventListener("input", () => {
      stop();
      draw();
    });
    for (const button of viewer.querySelectorAll("[data-step]")) {
      button.addEventListener("click", () => {
        stop();
        go(Number(range.value) + Number(button.dataset.step));
      });
    }
    const still = () => {
      play.hidden = calm.matches;
      if (calm.matches) stop();
    };
    calm.addEventListener("change", still);
    still();
    turner(viewer, (image) => {
      row = image;
      draw();
    })(0);
  };

  for (const viewer of document.querySelectorAll(".viewer")) {
    (viewer.classList.contains("compare") ? compare : player)(viewer);
    viewer.hidden = false;
  }
})();
