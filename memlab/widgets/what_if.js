// A panel of sliders over a table of predictions. `state` is what what_if.py puts in; `run` is null where there is no kernel.
function panel(root, state, run) {
  const place = state.axes.map((axis) => axis.at);
  const figures = [
    ["hit_ratio", "hit ratio", ""],
    ["p50_ms", "p50", "ms"],
    ["p95_ms", "p95", "ms"],
    ["mean_ms", "mean", "ms"],
  ];
  const make = (tag, parent, properties = {}) => parent.appendChild(Object.assign(document.createElement(tag), properties));
  const shown = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
  const row = (at) => state.axes.reduce((found, axis, number) => found * axis.values.length + at[number], 0);

  root.replaceChildren();
  root.className = "memlab-what-if";
  // JupyterLab moves to the next cell on arrow keys, wherever they are pressed in a notebook: on a slider they are the slider's.
  const keep = (event) => root.contains(event.target) && event.stopPropagation();
  window.addEventListener("keydown", keep, true);
  make("style", root, {
    textContent: `
      .memlab-what-if { font: 14px/1.5 system-ui, sans-serif; max-width: 50em; color: #222; background: #fff; padding: 0.8em; }
      .memlab-what-if label { display: grid; grid-template-columns: 13em 1fr 7em; gap: 1em; align-items: center; }
      .memlab-what-if table { border-collapse: collapse; margin: 0.8em 0; width: 100%; }
      .memlab-what-if th, .memlab-what-if td { text-align: right; padding: 0.2em 0.6em; border-bottom: 1px solid #ddd; }
      .memlab-what-if th:first-child, .memlab-what-if td:first-child { text-align: left; }
      .memlab-what-if td { white-space: nowrap; }
      .memlab-what-if button { font: inherit; padding: 0.2em 0.8em; }
      .memlab-what-if .said { margin-left: 1em; }`,
  });
  state.axes.forEach((axis, number) => {
    const label = make("label", root);
    make("span", label, { textContent: axis.label });
    const slider = make("input", label, { type: "range", min: 0, max: axis.values.length - 1, step: 1, value: axis.at });
    slider.setAttribute("aria-label", axis.label);
    const value = make("output", label, { textContent: axis.shown[axis.at] });
    slider.addEventListener("input", () => {
      place[number] = Number(slider.value);
      value.textContent = axis.shown[place[number]];
      draw();
    });
  });
  const table = make("table", root, { className: "figures" });
  const below = make("div", root);
  const button = make("button", below, { textContent: "Run this point", disabled: run === null });
  const said = make("span", below, { className: "said" });
  if (run === null) said.textContent = "Running a point needs the notebook and its kernel.";
  button.addEventListener("click", () => run([...place]));

  function interval(one, none) {
    if (one.value === null) return none;
    return shown(one.value) + (one.low === null ? "" : ` (${shown(one.low)} to ${shown(one.high)})`);
  }

  function draw() {
    const predicted = state.rows[row(place)];
    const measured = state.runs.find((one) => one.place.every((at, number) => at === place[number]));
    table.replaceChildren();
    const head = make("tr", make("thead", table));
    for (const text of ["", "predicted", measured ? `run ${measured.id}` : "not run"])
      make("th", head, { textContent: text });
    const body = make("tbody", table);
    for (const [name, title, unit] of figures) {
      const line = make("tr", body);
      make("td", line, { textContent: unit ? `${title} (${unit})` : title });
      make("td", line, { className: `predicted ${name}`, textContent: interval(predicted[name], "cannot keep up") });
      make("td", line, { className: `measured ${name}`, textContent: measured ? interval(measured[name], "too few") : "–" });
    }
    button.disabled = run === null || state.busy !== "" || Boolean(measured);
    if (run !== null) said.textContent = state.busy || (measured ? "This point was run." : "");
  }

  draw();
  return {
    changed: (newer) => { state = newer; draw(); },
    end: () => window.removeEventListener("keydown", keep, true),
  };
}
