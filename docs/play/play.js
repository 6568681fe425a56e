// Move a digit: a trained model, run in the browser, draws what a digit becomes. No framework; see index.html.
"use strict";
(() => {
  const GAP = 2, SECONDS = 2.6, REST = 500; // of the film strip; of one way through time; milliseconds at either end
  const get = id => document.getElementById(id);
  const WORDS = { scale: ["shrinks", "grows"], rotate: ["turns right", "turns left"], hue: ["runs back", "runs on"] };

  let data, run; // play.json, and the three parts of the model
  const state = {
    image: new Float32Array(SIDE * SIDE), // what the model is shown, grey in [0, 1]; it goes into the red channel
    codes: [], films: { model: [], truth: [] }, // of times 0 … T
    pose: [0, 0, 0], // of the image before it is shown: log of its size, degrees, degrees of hue
    speeds: [0, 0, 0], time: 0, direction: 1, playing: false, strokes: [], set: 0,
    begin: null, // a code to start from in place of the image's own
  };

  function codeAt(time) { // within a step the code moves on a line
    const t = Math.min(Math.floor(time), data.horizon - 1), part = time - t;
    return state.codes[t].map((value, i) => value + part * (state.codes[t + 1][i] - value));
  }

  function poseAt(time) {
    const t = Math.min(Math.floor(time), data.horizon - 1), part = time - t;
    return state.pose.map((start, k) => {
      const [a, b] = [data.amounts[t][k], data.amounts[t + 1][k]];
      return start + state.speeds[k] * (a + part * (b - a));
    });
  }

  // --- pictures --------------------------------------------------------------------------------------------------

  function drawFilm(name) {
    const canvas = get(`film-${name}`), context = canvas.getContext("2d"), films = state.films[name];
    canvas.width = films.length * (SIDE + GAP) + GAP;
    canvas.height = SIDE + 2 * GAP;
    context.fillStyle = colour("--accent");
    context.fillRect(Math.round(state.time) * (SIDE + GAP), 0, SIDE + 2 * GAP, canvas.height);
    films.forEach((x, t) => context.putImageData(asImage(x), GAP + t * (SIDE + GAP), GAP));
  }

  // --- one thing after the other: a new image needs a code, a code a path, a path a frame -------------------------

  const FRAME = 1, PATH = 2, IMAGE = 3;
  let wanted = 0, busy = false, own = null;

  function ask(level) {
    wanted = Math.max(wanted, level);
    if (!busy) work();
  }

  async function work() {
    busy = true;
    try {
      while (wanted) {
        const level = wanted, began = performance.now();
        wanted = 0;
        if (level >= IMAGE) own = await run.encode(inRed(state.image));
        if (level >= PATH) {
          const codes = [state.begin || own], speeds = [...state.speeds];
          for (let t = 0; t < data.horizon; t++) codes.push(await run.step(codes[t], speeds, t));
          state.films.model = await run.decode(codes);
          state.codes = codes;
          state.films.truth = state.codes.map((_, t) => rendered(state.image, poseAt(t)));
        }
        const time = state.time, [predicted] = await run.decode([codeAt(time)]), truth = rendered(state.image, poseAt(time));
        show(predicted, truth, time);
        get("cost").textContent = `This picture took ${Math.max(1, Math.round(performance.now() - began))} ms.`;
        document.dispatchEvent(new Event("drawn"));
      }
    } catch (error) {
      fail(error);
    }
    busy = false;
  }

  function show(predicted, truth, time) {
    get("model").getContext("2d").putImageData(asImage(predicted), 0, 0);
    get("truth").getContext("2d").putImageData(asImage(truth), 0, 0);
    drawFilm("model");
    drawFilm("truth");
    data.planes.forEach((plane, i) => drawPlane(get(`plane-${i}`), plane, data.hues, state.codes, codeAt(time)));
    get("time").value = time;
    get("time-said").textContent = time.toFixed(1);
    get("error").textContent = `Differs from the truth by ${apart(predicted, truth).toFixed(0)}, summed over all pixels; ` +
      `a model that moves nothing would by ${apart(state.films.model[0], truth).toFixed(0)}.`;
  }

  // --- time ------------------------------------------------------------------------------------------------------

  let last = 0, rest = 0;

  function setPlaying(playing) {
    if (playing === state.playing) return;
    state.playing = playing;
    get("play").textContent = playing ? "❚❚" : "▶";
    get("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    if (playing) requestAnimationFrame(now => tick((last = now)));
  }

  function tick(now) { // there and back again
    if (!state.playing) return;
    const passed = Math.min(now - last, 100);
    last = now;
    if (rest > 0) {
      rest -= passed;
    } else {
      state.time += state.direction * passed / 1000 * data.horizon / SECONDS;
      if (state.time <= 0 || state.time >= data.horizon) {
        state.time = Math.min(Math.max(state.time, 0), data.horizon);
        state.direction = state.time ? -1 : 1;
        rest = REST;
      }
      ask(FRAME);
    }
    requestAnimationFrame(tick);
  }

  function setTime(time) {
    setPlaying(false);
    state.time = time;
    ask(FRAME);
  }

  // --- speeds ----------------------------------------------------------------------------------------------------

  function makeSpeeds() {
    data.names.forEach((name, k) => {
      const row = document.createElement("div"), id = `speed-${name}`;
      row.className = "speed";
      row.innerHTML = `<label for="${id}">${name}</label><input type="range" id="${id}" min="-1" max="1" step="0.05">` +
        `<output for="${id}"></output>`;
      row.querySelector("input").addEventListener("input", event => {
        state.speeds[k] = Number(event.target.value);
        saySpeeds();
        ask(PATH);
      });
      get("speeds").append(row);
    });
  }

  function saySpeeds() {
    data.names.forEach((name, k) => {
      const speed = state.speeds[k], input = get(`speed-${name}`);
      const said = speed ? `${WORDS[name][Number(speed > 0)]}, ${Math.abs(speed).toFixed(2)}` : "rests";
      input.value = speed;
      input.setAttribute("aria-valuetext", said);
      input.nextElementSibling.textContent = said;
    });
  }

  function setSpeeds(speeds) {
    state.speeds = speeds.map(speed => Math.round(20 * speed) / 20 || 0);
    saySpeeds();
    ask(PATH);
  }

  function startOver(time = 0) {
    Object.assign(state, { time, direction: 1 });
    rest = 0;
  }

  // --- images: examples, and what is drawn -----------------------------------------------------------------------

  function take(grey) {
    state.image = grey;
    state.begin = null;
    state.pose = [0, 0, 0];
    startOver();
    ask(IMAGE);
  }

  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

  function makeExamples() {
    const shown = data.examples.slice(10 * state.set, 10 * state.set + 10);
    get("examples").replaceChildren(...shown.map(({ label, pixels }) => {
      const grey = Float32Array.from(bytes(pixels), value => value / 255);
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      canvas.width = canvas.height = SIDE;
      canvas.getContext("2d").putImageData(asImage(inRed(grey)), 0, 0);
      Object.assign(button, { type: "button" });
      button.setAttribute("aria-label", `Take this ${label}`);
      button.setAttribute("aria-pressed", "false");
      button.append(canvas);
      button.addEventListener("click", () => {
        press(button);
        state.strokes = [];
        drawPad(canvas);
        take(grey);
      });
      return button;
    }));
  }

  function press(chosen) {
    for (const button of get("examples").children) button.setAttribute("aria-pressed", String(button === chosen));
  }

  function drawPad(picture) {
    const pad = get("pad"), context = pad.getContext("2d");
    context.clearRect(0, 0, pad.width, pad.height);
    context.imageSmoothingEnabled = false;
    if (picture) return context.drawImage(picture, 0, 0, pad.width, pad.height);
    context.strokeStyle = "#ff2a2a";
    stroke(context, state.strokes, ([x, y]) => [pad.width * x, pad.height * y], pad.width * 0.085);
    if (state.strokes.length) return undefined;
    context.fillStyle = "#a8a3ad";
    context.font = "36px system-ui, sans-serif";
    context.textAlign = "center";
    return context.fillText("draw here", pad.width / 2, pad.height / 2);
  }

  function makePad() {
    const pad = get("pad");
    let points = null;
    const at = event => {
      const box = pad.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    pad.addEventListener("pointerdown", event => {
      pad.setPointerCapture(event.pointerId);
      press(null);
      points = [at(event)];
      state.strokes.push(points);
      setPlaying(false);
      drawn();
    });
    pad.addEventListener("pointermove", event => {
      if (!points) return;
      points.push(at(event));
      drawn();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      pad.addEventListener(end, () => {
        if (points && calm.matches === false) setPlaying(true);
        points = null;
      });
    }
    const drawn = () => {
      drawPad();
      take(normalised(state.strokes));
    };
    get("clear").addEventListener("click", () => {
      state.strokes = [];
      press(null);
      drawPad();
    });
  }

  // --- the page --------------------------------------------------------------------------------------------------

  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function connect() {
    get("play").addEventListener("click", () => setPlaying(!state.playing));
    get("time").addEventListener("input", event => setTime(Number(event.target.value)));
    for (const button of document.querySelectorAll("[data-speeds]")) {
      button.addEventListener("click", () => setSpeeds(button.dataset.speeds.split(" ").map(Number)));
    }
    get("surprise").addEventListener("click", () => setSpeeds(state.speeds.map(() => 2 * Math.random() - 1)));
    get("reverse").addEventListener("click", () => setSpeeds(state.speeds.map(speed => -speed)));
    get("onward").addEventListener("click", () => {
      if (!state.codes.length) return;
      Object.assign(state, { begin: codeAt(state.time), pose: poseAt(state.time) });
      startOver();
      ask(PATH);
    });
    get("others").addEventListener("click", () => {
      state.set = (state.set + 1) % Math.floor(data.examples.length / 10);
      makeExamples();
    });
    for (const name of ["model", "truth"]) {
      get(`film-${name}`).addEventListener("click", event => {
        const part = event.offsetX / event.target.clientWidth;
        setTime(Math.min(data.horizon, Math.floor(part * (data.horizon + 1))));
      });
    }
    const again = () => state.codes.length && ask(FRAME);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    addEventListener("resize", again);
  }

  function fail(error) {
    setPlaying(false);
    get("app").hidden = true;
    get("message").hidden = false;
    get("message").className = "trouble";
    get("message").textContent = error instanceof Trouble ? error.message
      : `Something went wrong (${error.message}). Load the page again; if that does not help, try another browser.`;
  }

  async function start() {
    [data, run] = await prepare();
    makeSpeeds();
    makeExamples();
    makePad();
    connect();
    get("source").textContent = data.source;
    get("message").hidden = true;
    get("app").hidden = false;
    state.speeds = [-0.3, 0.6, 1];
    saySpeeds();
    get("examples").children[2].click();
    if (!calm.matches) setPlaying(true);
  }

  start().catch(fail);
})();
