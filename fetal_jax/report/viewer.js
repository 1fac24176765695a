// The face's surface in a volume, ray cast, with landmarks over it: fills every figure.face3d.
//
// Axes (d, h, w) run to the child's Right, Anterior, Superior: a right-handed frame, in voxels.
// One hidden WebGL context draws for all figures; each keeps a plain 2D canvas, which also prints.
(() => {
  "use strict";
  const VERTEX = `#version 300 es
    out vec2 at;
    void main() {  // one triangle over the whole picture
      at = vec2(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0);
      gl_Position = vec4(at, 0.0, 1.0);
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    precision highp sampler3D;
    uniform sampler3D volume;
    uniform vec3 shape, centre, front, skin;
    uniform mat3 camera;       // columns right, up, towards the viewer
    uniform vec2 extent;       // half the picture
    uniform float fine;        // texels to a voxel
    uniform float near, ahead; // what lies further towards the viewer, or in front, is cut away
    uniform float level, stride, cm;
    in vec2 at;
    out vec4 colour;

    float probe(vec3 p) {
      return texture(volume, ((p * fine + 0.5) / ((shape - 1.0) * fine + 1.0)).zyx).r;
    }

    void main() {
      colour = vec4(0.0);
      vec3 way = -camera[2], beside = camera * vec3(at * extent, 0.0), origin = centre + beside;
      vec3 to_low = -origin / way, to_high = (shape - 1.0 - origin) / way;
      vec3 enter = min(to_low, to_high), leave = max(to_low, to_high);
      float start = max(max(enter.x, enter.y), max(enter.z, -near));
      float end = min(min(leave.x, leave.y), min(leave.z, 8.0 * cm));
      float speed = dot(way, front), room = ahead - dot(beside, front);
      if (speed < -1e-3) start = max(start, room / speed);
      else if (speed > 1e-3) end = min(end, room / speed);
      else if (room < 0.0) return;
      if (start >= end) return;

      float before = start, t = start, value = probe(origin + start * way);
      vec4 veil = vec4(vec3(0.45 * value), 1.0);
      bool cut = value > level, inside = cut, hit = false;  // starts in tissue: looks through it
      if (cut && near > 9e3) end = start;
      for (int i = 0; i < 1024 && !hit; i++) {
        before = t;
        t += value < 0.5 * level ? 1.6 * stride : stride;  // from the dark it is still far
        if (t >= end || (inside && t > start + 2.5 * cm)) break;
        value = probe(origin + t * way);
        if (inside) inside = value > level;
        else hit = value > level;
      }
      if (!hit) {
        if (cut) colour = veil;
        return;
      }
      for (int i = 0; i < 6; i++) {
        float middle = 0.5 * (before + t);
        if (probe(origin + middle * way) > level) t = middle; else before = middle;
      }

      vec3 p = origin + t * way, slope;
      for (int i = 0; i < 3; i++) {
        vec3 side = vec3(0.0);
        side[i] = 0.8;
        slope[i] = probe(p - side) - probe(p + side);
      }
      vec3 normal = slope / max(length(slope), 1e-5);
      float shut = 0.0;  // what stands round it takes the light
      for (float far = 0.25; far < 0.8; far += 0.25) {
        shut += smoothstep(0.4, 1.0, probe(p + far * cm * normal) / level) / 3.0;
      }
      vec3 light = normalize(camera * vec3(-0.5, 0.75, 0.6));
      float bright = 0.12 + 0.62 * max(dot(normal, light), 0.0);
      bright += 0.26 * max(dot(normal, camera[2]), 0.0);
      bright *= (1.0 - 0.6 * shut) * exp(-0.3 * max(t, 0.0) / cm);
      colour = vec4(skin * bright, 1.0);
      if (cut) colour = mix(colour, veil, 0.5);
    }`;
  const ANGLES = {  // degrees: from the front to the child's right, and up
    "Front": [0, 0], "Three-quarter": [38, 10], "Left": [-90, 0], "Right": [90, 0],
  };
  // The ground is dark in both of a page's schemes, as an ultrasound picture's is. A page may set
  // others as --face-truth and so on; figures.py has the first two for pictures of slices.
  const COLOURS =
    { truth: "#2de1c2", predicted: "#ff9f1c", ground: "#11161a", skin: "#d8cabd" };
  const STYLE = `  /* of no weight, so that the page's own rules win */
    :where(.face3d) { margin: 0 0 1rem; max-width: 30rem; }
    :where(.face3d canvas) { display: block; width: 100%; aspect-ratio: 1; cursor: grab;
      touch-action: pan-y; border-radius: 4px; }
    :where(.face3d .face3d-row) { display: flex; flex-wrap: wrap; align-items: center;
      gap: .3rem .9rem; margin-top: .4rem; font-size: .85rem; min-height: 1.3em; }
    :where(.face3d label) { display: inline-flex; align-items: center; gap: .35rem; }
    :where(.face3d input[type="range"]) { width: 6.5rem; }
    :where(.face3d svg) { width: 1.5rem; height: 1.15rem; vertical-align: -.2rem; fill: none;
      stroke-width: 2; border-radius: 3px; background: var(--face-ground, ${COLOURS.ground}); }
    @media print { .face3d .face3d-controls { display: none; } }`;

  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) =>
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const mix = (...terms) => [0, 1, 2].map((i) => terms.reduce((sum, [k, v]) => sum + k * v[i], 0));
  const unit = (a) => mix([1 / Math.hypot(...a), a]);
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // ---- the graphics card

  let gl = null;

  function startGL() {
    if (gl && !gl.isContextLost()) return gl;
    gl = make("canvas").getContext("webgl2", { antialias: false });
    if (!gl) return null;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return (gl = null);
    gl.useProgram(program);
    gl.place = (name) => gl.getUniformLocation(program, name);
    return gl;
  }

  // Twice as fine by cubic B-splines: a coarse grid's facets go, and some of the noise.
  function refine(voxels, shape) {
    let from = Float32Array.from(voxels, (v) => v / 255);
    const size = [...shape];
    for (let axis = 0; axis < 3; axis++) {
      const n = size[axis], m = 2 * n - 1;
      const inner = size.slice(axis + 1).reduce((a, b) => a * b, 1);
      const outer = from.length / n / inner;
      const to = new Float32Array(outer * m * inner);
      for (let row = 0; row < outer * m; row++) {
        const start = Math.floor(row / m) * n, i = row % m;
        const rows = [-1, 0, 1, 2].map((r) => (start + clamp((i >> 1) + r, 0, n - 1)) * inner);
        const [a, b, c, d] = i & 1 ? [1 / 48, 23 / 48, 23 / 48, 1 / 48] : [1 / 6, 2 / 3, 1 / 6, 0];
        for (let j = 0; j < inner; j++) {
          to[row * inner + j] = a * from[rows[0] + j] + b * from[rows[1] + j]
            + c * from[rows[2] + j] + d * from[rows[3] + j];
        }
      }
      [from, size[axis]] = [to, m];
    }
    return [from, size];
  }

  function upload(voxels, shape) {
    const fine = Math.max(...shape) <= 64 ? 2 : 1;
    const [values, [d, h, w]] = fine === 2 ? refine(voxels, shape) : [voxels, shape];
    const [inner, type] = fine === 2 ? [gl.R16F, gl.FLOAT] : [gl.R8, gl.UNSIGNED_BYTE];
    const texture = gl.createTexture(), kind = gl.TEXTURE_3D;
    gl.bindTexture(kind, texture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage3D(kind, 0, inner, w, h, d, 0, gl.RED, type, values);  // C order: w runs fastest
    for (const name of ["MIN_FILTER", "MAG_FILTER"]) {
      gl.texParameteri(kind, gl[`TEXTURE_${name}`], gl.LINEAR);
    }
    for (const name of ["WRAP_S", "WRAP_T", "WRAP_R"]) {
      gl.texParameteri(kind, gl[`TEXTURE_${name}`], gl.CLAMP_TO_EDGE);
    }
    return { texture, fine, gl };
  }

  function readColour(text) {
    const pen = make("canvas").getContext("2d");
    pen.fillStyle = text;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)].map((v) => v / 255);
  }

  // ---- one figure

  class View {
    constructor(figure, scene) {
      Object.assign(this, { figure, scene, draws: 0, chosen: -1, pinned: false, marks: [] });
      const { shape, labels = [], spacing_mm: spacing = 1 } = scene, none = labels.map(() => null);
      Object.assign(this, { shape, labels, spacing });
      [this.truth, this.predicted] = [scene.truth || none, scene.predicted || none];
      this.visible = scene.visible || labels.map(() => true);
      const front = unit(scene.front || [0, 1, 0]);
      const side = unit(cross(front, scene.up || [0, 0, 1]));  // the child's right
      this.axes = { front, side, up: cross(side, front) };
      this.anchors = this.truth.map((p, i) => p || this.predicted[i]).filter(Boolean);
      const points = this.anchors.length > 2 ? this.anchors : [[0, 0, 0], shape.map((n) => n - 1)];
      const span = [0, 1, 2].map((i) => points.map((p) => p[i]));
      this.centre = span.map((x) => (Math.min(...x) + Math.max(...x)) / 2);
      const reach = Math.max(...span.map((x) => Math.max(...x) - Math.min(...x)), 1);
      const largest = Math.max(...shape);
      this.half = clamp(0.92 * reach, 0.2 * largest, 0.6 * largest);  // of the picture at zoom 1
      this.cm = reach / 4.5;  // voxels; a centimetre if the landmarks span what a face's do
      this.whole = 60 * this.unit;  // a cut so far out cuts nothing
      this.state = {
        azimuth: 0, elevation: 0, zoom: 1, labels: true, threshold: scene.threshold ?? 80,
        cut: this.anchors.length > 2 ? scene.cut_mm ?? 8 * this.unit : this.whole,
      };
      this.build();
      this.listen();
    }

    get unit() {  // a tenth of `cm`, in mm
      return 0.1 * this.cm * this.spacing;
    }

    build() {
      const { state, whole, unit } = this;
      this.canvas = make("canvas", { role: "img", tabindex: "0", "aria-label": this.describe() });
      this.reading = make("div", { class: "face3d-row", role: "status" });
      const controls = make("div", { class: "face3d-row face3d-controls" });
      for (const name of Object.keys(ANGLES)) {
        const button = make("button", { type: "button" }, name);
        if (/Left|Right/.test(name)) button.title = `The child's ${name.toLowerCase()} side`;
        button.addEventListener("click", () => this.turn(...ANGLES[name]));
        controls.append(button);
      }
      const slide = (text, name, min, max, step, say) => {
        const input = make("input", { type: "range", min, max, step, value: state[name] });
        const tell = () => input.setAttribute("aria-valuetext", say(state[name]));
        input.addEventListener("input", () => {
          state[name] = Number(input.value);
          tell();
          this.request(true);
        });
        tell();
        controls.append(make("label", {}, text, input));
      };
      slide("Threshold", "threshold", 4, 250, 1, (x) => `${x} of 255`);
      slide("Cut", "cut", -20 * unit, whole, unit, (x) =>
        x >= whole ? "nothing is cut away" : `${x.toFixed(1)} mm before the nearest landmark`);
      if (this.labels.length) {
        const box = make("input", { type: "checkbox" });
        box.checked = state.labels;
        box.addEventListener("change", () => {
          state.labels = box.checked;
          this.request();
        });
        controls.append(make("label", {}, box, "Labels"));
      }
      this.figure.prepend(this.canvas, this.reading, this.makeLegend(), controls);
    }

    makeLegend() {
      const legend = make("div", { class: "face3d-row face3d-legend" });
      const add = (wanted, drawing, text) => {
        if (!wanted) return;
        const entry = make("span");
        entry.innerHTML = `<svg viewBox="0 0 26 20" aria-hidden="true">${drawing}</svg> ${text}`;
        legend.append(entry);
      };
      const { truth, predicted, visible } = this;
      const ring = `<circle cx="13" cy="10" r="7" stroke="var(--face-truth, ${COLOURS.truth})"`;
      const line = `stroke="var(--face-predicted, ${COLOURS.predicted})"`;
      add(truth.some((p, i) => p && visible[i]), `${ring}/>`, "truth");
      add(truth.some((p, i) => p && !visible[i]), `${ring} stroke-dasharray="4 3"/>`,
        "truth, not visible in the scan");
      add(predicted.some(Boolean), `<path d="M13 2v16M5 10h16" ${line}/>`, "prediction");
      add(truth.some((p, i) => p && predicted[i]),
        `<path d="M1 16L25 4" stroke-width="1" ${line}/>`, "error");
      return legend;
    }

    describe() {
      const errors = (this.scene.error_mm || []).filter((e) => e != null);
      const mean = errors.reduce((a, b) => a + b, 0) / errors.length;
      const { azimuth, elevation } = this.state;
      const view = Object.keys(ANGLES).find((k) => `${ANGLES[k]}` === `${[azimuth, elevation]}`);
      return [
        `Surface of the face, ${this.scene.title || "one case"}`,
        `view: ${(view || "turned by hand").toLowerCase()}`,
        `${this.anchors.length} landmarks`,
        ...(errors.length ? [`mean error ${mean.toFixed(1)} mm`] : []),
        "arrow keys turn it, + and - zoom",
      ].join("; ");
    }

    // -- geometry

    camera() {
      const { front, side, up } = this.axes;
      const a = this.state.azimuth * Math.PI / 180, e = this.state.elevation * Math.PI / 180;
      const level = mix([Math.cos(a), front], [Math.sin(a), side]);
      const toward = mix([Math.cos(e), level], [Math.sin(e), up]);
      const right = unit(cross(up, toward));  // in the picture: the child's left, from the front
      return { right, up: cross(toward, right), toward };
    }

    along(point, way) {
      return dot(point, way) - dot(this.centre, way);
    }

    // Voxels [d, h, w] to the picture [x, y], CSS pixels from its upper left corner.
    project(point, camera = this.camera()) {
      const [width, height] = this.size();
      const scale = (Math.min(width, height) * this.state.zoom) / (2 * this.half);
      return [
        width / 2 + scale * this.along(point, camera.right),
        height / 2 - scale * this.along(point, camera.up),
      ];
    }

    size() {
      return [this.canvas.clientWidth || 360, this.canvas.clientHeight || 360];
    }

    // What lies further along `way`, voxels from the centre, is cut away: it hides the face.
    limit(way) {
      if (this.state.cut >= this.whole) return 1e4;
      const beside = 1.4 * this.cm * (1 - Math.abs(dot(way, this.axes.front)));  // a head is wide
      const nearest = Math.max(0, ...this.anchors.map((p) => this.along(p, way)));
      return nearest + beside + this.state.cut / this.spacing;
    }

    value(point) {
      const base = point.map(Math.floor), [, h, w] = this.shape;
      if (base.some((k, i) => k < 0 || k > this.shape[i] - 2)) return 0;
      let sum = 0;
      for (let corner = 0; corner < 8; corner++) {
        const at = base.map((k, i) => k + ((corner >> i) & 1));
        const weight = at.reduce((product, k, i) => product * (1 - Math.abs(point[i] - k)), 1);
        sum += weight * this.voxels[(at[0] * h + at[1]) * w + at[2]];
      }
      return sum;
    }

    // Whether something stands clearly between the point and the viewer; what is cut does not.
    hidden(point, { toward }) {
      const { front } = this.axes, speed = dot(toward, front), clear = 0.5 * this.cm;
      const left = (way) => this.limit(way) - this.along(point, way);
      let room = Math.min(left(toward), 3 * this.half);
      if (speed > 1e-3) room = Math.min(room, left(front) / speed);
      let inside = room > clear;
      for (let s = room; s > clear; s -= 0.7) {
        const tissue = this.value(mix([1, point], [s, toward])) > this.state.threshold;
        if (tissue && !inside) return true;
        inside &&= tissue;
      }
      return inside;
    }

    // -- drawing

    turn(azimuth, elevation) {
      Object.assign(this.state, { azimuth, elevation });
      this.request();
    }

    // Soon; while something moves first a coarse picture, then a fine one.
    request(moving = false) {
      if (!this.draws) return;  // comes into sight later
      clearTimeout(this.timer);
      if (moving) this.timer = setTimeout(() => this.request(), 160);
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.draw(moving));
    }

    draw(coarse = false) {
      const { canvas } = this, [width, height] = this.size(), camera = this.camera();
      const ratio = Math.min(window.devicePixelRatio || 1, 2), pen = canvas.getContext("2d");
      const style = getComputedStyle(this.figure);
      const css = (name) => style.getPropertyValue(`--face-${name}`).trim() || COLOURS[name];
      this.cast(camera, css("skin"), coarse ? 0.5 : this.slow ? 1 : ratio);
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      pen.fillStyle = css("ground");
      pen.fillRect(0, 0, canvas.width, canvas.height);
      if (this.surface) pen.drawImage(this.surface, 0, 0, canvas.width, canvas.height);
      pen.scale(ratio, ratio);
      this.drawLandmarks(pen, camera, css("truth"), css("predicted"));
      canvas.setAttribute("aria-label", this.describe());
      this.draws++;
    }

    // The surface, in a canvas that is kept until something changes.
    cast(camera, skin, sharp) {
      const { shape } = this, [width, height] = this.size(), { threshold, cut, zoom } = this.state;
      const key = JSON.stringify([camera, skin, sharp, width, height, threshold, cut, zoom]);
      if (key === this.key || !startGL()) return;
      this.voxels ??= Uint8Array.from(atob(this.scene.volume), (c) => c.charCodeAt(0));
      if (this.card?.gl !== gl) this.card = upload(this.voxels, shape);
      gl.canvas.width = Math.round(width * sharp);
      gl.canvas.height = Math.round(height * sharp);
      gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
      gl.bindTexture(gl.TEXTURE_3D, this.card.texture);
      const scale = this.half / zoom / Math.min(width, height);
      const numbers = {
        fine: this.card.fine, near: this.limit(camera.toward), ahead: this.limit(this.axes.front),
        level: threshold / 255, stride: sharp < 1 ? 1 : 0.6, cm: this.cm,
      };
      const vectors = {
        shape, centre: this.centre, front: this.axes.front, skin: readColour(skin),
      };
      const rows = [...camera.right, ...camera.up, ...camera.toward];
      for (const [name, value] of Object.entries(numbers)) gl.uniform1f(gl.place(name), value);
      for (const [name, value] of Object.entries(vectors)) gl.uniform3fv(gl.place(name), value);
      gl.uniformMatrix3fv(gl.place("camera"), false, rows);
      gl.uniform2f(gl.place("extent"), width * scale, height * scale);
      const began = performance.now();
      gl.drawArrays(gl.TRIANGLES, 0, 3);
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));  // waits for it
      this.slow ||= sharp > 1 && performance.now() - began > 700;
      this.surface = make("canvas", { width: gl.canvas.width, height: gl.canvas.height });
      this.surface.getContext("2d").drawImage(gl.canvas, 0, 0);
      this.key = key;
    }

    drawLandmarks(pen, camera, truthColour, predictedColour) {
      const stroke = (colour, width, dashes, alpha, path) => {
        pen.globalAlpha = alpha;
        pen.setLineDash(dashes);
        for (const [style, wider] of [["rgba(0,0,0,.65)", 2.4], [colour, 0]]) {
          [pen.strokeStyle, pen.lineWidth] = [style, width + wider];
          pen.beginPath();
          path();
          pen.stroke();
        }
        pen.setLineDash([]);
      };
      const opaque = (point) => (this.voxels && this.hidden(point, camera) ? 0.4 : 1);
      this.marks = [];
      this.labels.forEach((label, i) => {
        const both = [this.truth[i], this.predicted[i]];
        const [truth, predicted] = both.map((p) => p && this.project(p, camera));
        if (!truth && !predicted) return;
        const [truthAlpha, predictedAlpha] = both.map((p) => (p ? opaque(p) : 0));
        if (truth && predicted) {
          stroke(predictedColour, 1, [], Math.max(truthAlpha, predictedAlpha), () => {
            pen.moveTo(...truth);
            pen.lineTo(...predicted);
          });
        }
        if (truth) {
          stroke(truthColour, 2, this.visible[i] ? [] : [3, 2.4], truthAlpha, () =>
            pen.arc(...truth, 5, 0, 7));
        }
        if (predicted) {
          stroke(predictedColour, 2, [], predictedAlpha, () => {
            for (const [x, y] of [[5, 0], [0, 5]]) {
              pen.moveTo(predicted[0] - x, predicted[1] - y);
              pen.lineTo(predicted[0] + x, predicted[1] + y);
            }
          });
        }
        const ends = [truth, predicted].filter(Boolean);
        if (i === this.chosen) {
          for (const end of ends) stroke("#fff", 1.2, [], 1, () => pen.arc(...end, 9, 0, 7));
        }
        const clear = (truthAlpha || predictedAlpha) === 1;
        this.marks.push({ i, label, ends, at: ends[0], clear });
      });
      pen.globalAlpha = 1;
      if (this.state.labels) this.drawLabels(pen);
    }

    // Each label on that side of its mark where it covers least.
    drawLabels(pen) {
      const taken = this.marks.map(({ at: [x, y] }) => [x - 5, y - 5, x + 5, y + 5]);
      const covered = (a) => taken.reduce((sum, b) => {
        const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
        const h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
        return sum + Math.max(w, 0) * Math.max(h, 0);
      }, 0);
      pen.font = "11px system-ui, sans-serif";
      pen.textBaseline = "middle";
      pen.lineWidth = 3;
      pen.lineJoin = "round";
      pen.strokeStyle = "rgba(0,0,0,.75)";
      pen.fillStyle = "#fff";
      for (const { label, at: [x, y], clear } of this.marks) {
        const w = pen.measureText(label).width;
        const boxes = [
          [8, 0], [-8 - w, 0], [-w / 2, -12], [-w / 2, 12],
          [6, -9], [6, 9], [-6 - w, -9], [-6 - w, 9],
        ].map(([a, b]) => [x + a, y + b - 5, x + a + w, y + b + 5]);
        const costs = boxes.map(covered), box = boxes[costs.indexOf(Math.min(...costs))];
        taken.push(box);
        pen.globalAlpha = clear ? 1 : 0.55;
        pen.strokeText(label, box[0], box[1] + 5);
        pen.fillText(label, box[0], box[1] + 5);
      }
      pen.globalAlpha = 1;
    }

    // -- what the reader does

    choose(i, pin = false) {
      if (this.pinned && !pin) return;
      this.pinned = pin && i >= 0;
      if (i === this.chosen) return;
      this.chosen = i;
      this.reading.textContent = i < 0 ? "" : this.tell(i);
      this.request();
    }

    tell(i) {
      const error = this.scene.error_mm?.[i], confidence = this.scene.confidence?.[i];
      return `${this.labels[i]}: ` + [
        error != null ? `error ${error.toFixed(1)} mm`
          : this.truth[i] ? "no prediction" : "no truth to compare with",
        ...(confidence != null ? [`confidence ${confidence.toFixed(2)}`] : []),
        ...(this.truth[i] && !this.visible[i] ? ["not visible in the scan"] : []),
      ].join(", ");
    }

    nearest(x, y) {
      const far = this.marks.map(({ ends }) =>
        Math.min(...ends.map(([a, b]) => Math.hypot(a - x, b - y))));
      const least = Math.min(...far);
      return least < 12 ? this.marks[far.indexOf(least)].i : -1;
    }

    orbit(right, up) {
      const { state } = this;
      state.azimuth = ((state.azimuth + right + 540) % 360) - 180;
      state.elevation = clamp(state.elevation + up, -85, 85);
      this.request(true);
    }

    zoom(factor) {
      this.state.zoom = clamp(this.state.zoom * factor, 0.4, 6);
      this.request(true);
    }

    listen() {
      const { canvas } = this, fingers = new Map();
      const on = (name, act, options) => canvas.addEventListener(name, act, options);
      const spread = ([[a, b], [c, d]]) => Math.hypot(a - c, b - d);
      let moved = 0;
      on("pointerdown", ({ pointerId, offsetX, offsetY }) => {
        if (!fingers.size) moved = 0;
        fingers.set(pointerId, [offsetX, offsetY]);
        canvas.setPointerCapture(pointerId);
      });
      on("pointermove", ({ pointerId, offsetX: x, offsetY: y }) => {
        const last = fingers.get(pointerId);
        if (!last) return this.choose(this.nearest(x, y));
        const before = [...fingers.values()];
        fingers.set(pointerId, [x, y]);
        moved += Math.hypot(x - last[0], y - last[1]);
        if (before.length === 2) this.zoom(spread([...fingers.values()]) / spread(before));
        else if (moved > 3) this.orbit(0.5 * (x - last[0]), 0.5 * (y - last[1]));
      });
      on("pointerup", ({ pointerId, offsetX, offsetY }) => {
        fingers.delete(pointerId);
        if (moved <= 3) this.choose(this.nearest(offsetX, offsetY), true);
      });
      on("pointercancel", ({ pointerId }) => fingers.delete(pointerId));
      on("pointerleave", () => this.choose(-1));
      on("wheel", (event) => {
        // a page scrolls on over a picture that nobody has clicked on; a pinch comes with ctrl
        if (document.activeElement !== canvas && !event.ctrlKey) return;
        event.preventDefault();
        this.zoom(Math.exp(-0.0015 * event.deltaY));
      }, { passive: false });
      on("keydown", (event) => {
        const turns = {
          ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, -5], ArrowDown: [0, 5],
        };
        const zooms = { "+": 1.1, "=": 1.1, "-": 1 / 1.1 };
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        if (event.key in turns) this.orbit(...turns[event.key]);
        else if (event.key in zooms) this.zoom(zooms[event.key]);
        else return;
        event.preventDefault();
      });
      new ResizeObserver(() => this.request()).observe(canvas);
    }
  }

  // ---- the page

  const views = [];

  function start() {
    const figures = [...document.querySelectorAll("figure.face3d")];
    if (!figures.length) return;
    document.head.prepend(make("style", {}, STYLE));
    const scenes = JSON.parse(document.getElementById("scenes")?.textContent || "[]");
    const observer = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        observer.unobserve(target);
        views.find((view) => view.figure === target).draw();
      }
    }, { rootMargin: "200px" });
    for (const figure of figures) {
      const scene = scenes[Number(figure.dataset.scene)];
      if (scene && startGL()) {
        views.push(new View(figure, scene));
        observer.observe(figure);
      } else {
        const why = scene ? "This browser has no WebGL2: no 3D view." : "No 3D view of this case.";
        figure.prepend(make("p", { class: "face3d-none" }, why));
      }
    }
    const redraw = () => views.forEach((view) => view.request());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new MutationObserver(redraw).observe(document.documentElement, { attributes: true });
    window.addEventListener("beforeprint", () =>
      views.filter((view) => !view.draws).forEach((view) => view.draw()));
  }

  const ready = new Promise((resolve) => {
    const run = () => resolve(start());
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", run);
    else run();
  });
  window.faceViewer = { ready, views };
})();
