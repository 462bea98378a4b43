"use strict";
// The page that is the inspector: unpacks the runtime and the model, looks at an image, decides, draws.
addEventListener("DOMContentLoaded", () => {
  const $ = (id) => document.getElementById(id);
  const WIDEST = 1400; // of the picture, in pixels
  const CALM = 0.35, SURE = 0.65; // where a colour begins to show, and where it is as strong as it gets
  // A function of one v128: it compiles where there is SIMD.
  const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  const HALF = 2 ** 21; // of a level
  const OTHER_FILES = [
    ["II*\0", "a TIFF"], ["MM\0*", "a TIFF"], ["II+\0", "a TIFF"], ["MM\0+", "a TIFF"], ["\0\0\0\x0cjP  ", "a JPEG 2000"], ["\xff\x4f\xff\x51", "a JPEG 2000"],
    ["\0\0\x01\0", "an icon"], ...[1, 2, 3, 4, 5, 6].map((kind) => [`P${kind}`, "a file of PBM, PGM or PPM"]),
  ]; // by how they begin
  let settings, turbo, session, bitmap, found;

  class Refusal extends Error {} // what a user can mend, and how

  const tell = (state, text) => {
    document.body.dataset.state = state;
    $("status").textContent = text;
  };
  const explain = (error) => {
    console.warn(error);
    tell("failed", error instanceof Refusal ? error.message : `That did not work: ${error.message || error}`);
  };

  const bytesOf = (text) => Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (one) => one.charCodeAt(0));

  const unpack = async (id) => {
    try {
      const packed = bytesOf($(id).textContent.trim());
      $(id).remove();
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      return new Uint8Array(await new Response(stream).arrayBuffer());
    } catch (error) {
      console.warn(error);
      throw new Refusal("This page is damaged: a part of it is missing or has changed. Save or download it again.");
    }
  };

  const floats = (text) => new Float32Array(bytesOf(text).buffer);

  async function load() {
    if (typeof WebAssembly !== "object" || !WebAssembly.validate(new Uint8Array(SIMD)) || typeof DecompressionStream !== "function") {
      throw new Refusal("This browser is too old for this page: it needs WebAssembly with SIMD and DecompressionStream, which Chrome, Edge, Firefox and Safari have since 2023.");
    }
    const text = new TextDecoder().decode(await unpack("settings"));
    settings = JSON.parse(text);
    turbo = bytesOf(settings.colours);
    settings.classes.forEach((one) => { one.text = one.text && floats(one.text); });
    furnish();
    const [script, loader, wasm, model] = await Promise.all(["script", "loader", "wasm", "model"].map(unpack));
    const address = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
    await new Promise((done, fail) => {
      const element = document.createElement("script");
      element.src = address(script);
      element.onload = done;
      element.onerror = () => fail(new Refusal("This browser does not run scripts that a page carries."));
      document.head.append(element);
    });
    Object.assign(ort.env.wasm, { wasmBinary: wasm, wasmPaths: { mjs: address(loader) }, numThreads: 1 });
    ort.env.logLevel = "error";
    session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], graphOptimizationLevel: "disabled" });
    tell("ready", "Ready.");
    document.body.dataset.loaded = performance.now();
  }

  function furnish() {
    const named = settings.classes.filter((one) => one.name !== null);
    $("class").append(...named.map((one) => new Option(one.name)));
    $("naming").hidden = !named.length;
    $("threshold").value = settings.threshold;
    for (const [index, example] of settings.examples.entries()) {
      const picture = document.createElement("img");
      const file = new Blob([bytesOf(example.content)]);
      picture.src = URL.createObjectURL(file);
      picture.alt = example.name;
      const button = document.createElement("button");
      button.type = "button";
      button.id = `example-${index}`;
      button.append(picture);
      button.addEventListener("click", () => look(file, example.name));
      $("examples").append(button);
    }
    choose();
  }

  const chosen = () => settings.classes[Math.max($("class").selectedIndex, 0)];

  // The slider of the class: of the threshold, or of the rate where there are scores of normal images.
  function choose() {
    const { scores } = chosen();
    $("by-threshold").hidden = $("rarity").hidden = false;
    $(scores ? "by-threshold" : "by-rate").hidden = true;
    $(scores ? "by-rate" : "by-threshold").hidden = false;
    $("rarity").hidden = !scores;
    if (scores) {
      $("rate").max = scores.length;
      $("rate").value = Math.max(1, Math.floor(settings.rate * (scores.length + 1) + 1e-3));
    }
  }

  // Image score and map value above which something is defective; scores and peaks have room for ties (NormalScores.bounds).
  function limits() {
    const { scores, peaks } = chosen();
    if (!scores) {
      const threshold = Number($("threshold").value);
      return [threshold, threshold];
    }
    const rank = Number($("rate").value);
    return [scores, peaks].map((values) => values.toSorted((a, b) => b - a)[rank - 1]);
  }

  async function look(file, name = "The image") {
    if (!session || document.body.dataset.state === "working") return;
    tell("working", "Looking ...");
    try {
      bitmap = await decoded(file, name);
      await infer();
    } catch (error) {
      explain(error);
    }
  }

  // Refuse by name what a browser decodes otherwise than Python does, or not at all; by the file's header.
  async function check(file, name) {
    const view = new DataView(await file.arrayBuffer());
    const text = (at, length) => String.fromCharCode(...new Uint8Array(view.buffer, Math.min(at, view.byteLength), Math.max(0, Math.min(length, view.byteLength - at))));
    const refuse = (what) => { throw new Refusal(`${name} is ${what}, which browsers read otherwise than Python, or not at all. Save it as a PNG of 8 bits.`); };
    const other = OTHER_FILES.find(([start]) => text(0, start.length) === start);
    if (other) refuse(other[1]);
    try {
      if (text(0, 8) === "\x89PNG\r\n\x1a\n") {
        if (view.getUint8(24) === 16) refuse("a PNG of 16 bits");
        for (let at = 8; text(at + 4, 4) !== "IDAT"; at += 12 + view.getUint32(at)) {
          if (text(at + 4, 4) === "acTL") refuse("an animated PNG");
        }
      } else if (text(0, 3) === "\xff\xd8\xff") {
        for (let at = 2, marker; (marker = view.getUint8(at + 1)) !== 0xda; at += marker === 0xff ? 1 : 2 + view.getUint16(at + 2)) {
          const frame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
          if (frame && view.getUint8(at + 9) === 4) refuse("a JPEG of CMYK colours");
        }
      } else if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") {
        for (let at = 12; at < view.byteLength; at += 8 + view.getUint32(at + 4, true) + view.getUint32(at + 4, true) % 2) {
          const kind = text(at, 4), content = at + 8;
          if (kind === "ANIM" || kind === "ANMF") refuse("an animated WebP");
          if (kind === "ALPH" || (kind === "VP8L" && view.getUint32(content + 1, true) >>> 28 & 1)) refuse("a WebP with transparency");
          if (kind === "EXIF" && orientation(view, content + (text(content, 6) === "Exif\0\0" ? 6 : 0)) !== 1) refuse("a WebP that EXIF says to turn");
        }
      } else if (text(0, 3) === "GIF") {
        const table = (flags) => flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0;
        let at = 13 + table(view.getUint8(10));
        while (view.getUint8(at) === 0x21) {
          for (at += 2; view.getUint8(at); at += 1 + view.getUint8(at));
          at += 1;
        }
        const [left, top, width, height] = [1, 3, 5, 7].map((offset) => view.getUint16(at + offset, true));
        if (left || top || width !== view.getUint16(6, true) || height !== view.getUint16(8, true)) refuse("a GIF whose first frame does not fill it");
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // a file that is cut is told of by the browser's decoder
    }
  }

  // How EXIF says that an image is to be turned, 1 to 8.
  function orientation(view, start) {
    const little = view.getUint16(start) === 0x4949, first = start + view.getUint32(start + 4, little);
    for (let entry = 0; entry < view.getUint16(first, little); entry++) {
      const at = first + 2 + 12 * entry;
      if (view.getUint16(at, little) === 0x0112) return view.getUint16(at + 8, little);
    }
    return 1;
  }

  async function decoded(file, name) {
    await check(file, name);
    const address = URL.createObjectURL(file);
    try {
      const header = new Image();
      await new Promise((done, fail) => { header.onload = done; header.onerror = fail; header.src = address; }).catch(() => {
        throw new Refusal(`${name} is no image that this browser can read.`);
      });
      const pixels = header.naturalWidth * header.naturalHeight;
      if (pixels > settings.max_pixels) {
        throw new Refusal(`${name} has ${pixels.toLocaleString("en")} pixels, and ${settings.max_pixels.toLocaleString("en")} are allowed. Make it smaller.`);
      }
      return await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => {
        throw new Refusal(`${name} is no image that this browser can read, or is damaged.`);
      });
    } finally {
      URL.revokeObjectURL(address);
    }
  }

  // Pillow's bicubic resize, to the last bit: weights are multiples of 2^-22, and levels are whole after each pass.
  function resized(data, width, height, side) {
    const across = weights(width, side), down = weights(height, side);
    const narrow = new Uint8ClampedArray(3 * height * side), small = new Uint8Array(3 * side * side);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < side; x++) {
        const { first, taps } = across[x];
        let red = HALF, green = HALF, blue = HALF;
        for (let tap = 0, at = 4 * (y * width + first); tap < taps.length; tap++, at += 4) {
          const weight = taps[tap];
          red += data[at] * weight;
          green += data[at + 1] * weight;
          blue += data[at + 2] * weight;
        }
        const at = y * side + x;
        narrow[at] = red >> 22;
        narrow[at + height * side] = green >> 22;
        narrow[at + 2 * height * side] = blue >> 22;
      }
    }
    for (let channel = 0; channel < 3; channel++) {
      for (let y = 0; y < side; y++) {
        const { first, taps } = down[y];
        for (let x = 0; x < side; x++) {
          let sum = HALF;
          for (let tap = 0, at = (channel * height + first) * side + x; tap < taps.length; tap++, at += side) sum += narrow[at] * taps[tap];
          small[(channel * side + y) * side + x] = Math.min(Math.max(sum >> 22, 0), 255);
        }
      }
    }
    return small;
  }

  function weights(given, wanted) {
    const scale = given / wanted, stretch = Math.max(scale, 1), reach = 2 * stretch;
    return Array.from({ length: wanted }, (_, index) => {
      const centre = (index + 0.5) * scale;
      const first = Math.max(Math.trunc(centre - reach + 0.5), 0), end = Math.min(Math.trunc(centre + reach + 0.5), given);
      const exact = Array.from({ length: end - first }, (_, tap) => cubic((tap + first - centre + 0.5) / stretch));
      const whole = exact.reduce((sum, one) => sum + one, 0);
      return { first, taps: Int32Array.from(exact, (one) => { const bits = one / whole * 2 ** 22; return bits + (bits < 0 ? -0.5 : 0.5); }) };
    });
  }

  function cubic(place) {
    const distance = Math.abs(place);
    if (distance < 1) return ((-0.5 + 2) * distance - (-0.5 + 3)) * distance * distance + 1;
    return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * -0.5 : 0;
  }

  async function infer() {
    await new Promise((done) => setTimeout(done, 20)); // what is told gets painted
    const start = performance.now();
    const { width, height } = bitmap;
    const surface = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    onWhite(surface, width, height);
    const { data } = surface.getImageData(0, 0, width, height);
    const one = chosen();
    const inputs = { image: new ort.Tensor("uint8", resized(data, width, height, settings.size), [1, 3, settings.size, settings.size]) };
    if (one.text) inputs.text_features = new ort.Tensor("float32", one.text, [one.text.length / 2, 2]);
    for (const [name, values] of Object.entries(one.inputs)) {
      const numbers = Float32Array.from([values].flat());
      inputs[name] = new ort.Tensor("float32", numbers, Array.isArray(values) ? [numbers.length] : []);
    }
    const answer = await session.run(inputs);
    found = { score: answer.pred_score.data[0], map: answer.anomaly_map.data, side: settings.size };
    $("time").textContent = `${((performance.now() - start) / 1000).toFixed(2)} s`;
    $("download").disabled = false;
    conclude();
    tell("done", "Drop another image to go on.");
  }

  function conclude() {
    const { scores, defects, good } = chosen();
    const [limit, mapLimit] = limits();
    $("threshold-value").textContent = Number($("threshold").value).toFixed(3);
    $("opacity-value").textContent = `${Math.round(100 * $("opacity").value)} %`;
    if (scores) $("rate-value").textContent = `${(100 * $("rate").value / (scores.length + 1)).toFixed(1)} % of normal images`;
    if (!found) return;
    const defective = !(found.score <= limit);
    const rare = scores && (1 + scores.filter((one) => one >= found.score).length) / (scores.length + 1);
    show("score", found.score, found.score.toFixed(4));
    show("p-value", rare, scores ? rare.toFixed(3) : "\u2013");
    const unlike = defects ? 1 + defects.filter((one) => !(one > found.score)).length <= good : !defective; // of known defects
    $("verdict").hidden = false;
    $("verdict").textContent = $("verdict").className = ["good", "look", "defective"][1 + defective - unlike];
    const regions = draw(mapLimit);
    show("regions", regions, String(regions));
  }

  function show(id, value, text) {
    $(id).value = text;
    $(id).dataset.value = value;
  }

  // The map at the size of the picture, between the centres of its values.
  function enlarged(width, height) {
    const { map, side } = found, large = new Float32Array(width * height);
    const places = (size) => Array.from({ length: size }, (_, index) => {
      const place = Math.min(Math.max((index + 0.5) * side / size - 0.5, 0), side - 1), first = Math.min(Math.floor(place), side - 2);
      return [first, place - first];
    });
    const columns = places(width);
    places(height).forEach(([row, down], y) => {
      for (let x = 0, at = y * width; x < width; x++, at++) {
        const [column, across] = columns[x], corner = row * side + column;
        const upper = map[corner] * (1 - across) + map[corner + 1] * across;
        const lower = map[corner + side] * (1 - across) + map[corner + side + 1] * across;
        large[at] = upper * (1 - down) + lower * down;
      }
    });
    return large;
  }

  // The image where it is not transparent, and white where it is, as Python reads it.
  function onWhite(context, width, height) {
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0, width, height);
  }

  // Draw the image under its heat map, one scale for all images with the limit in its middle; the number of regions.
  function draw(limit) {
    const share = Math.min(1, WIDEST / Math.max(bitmap.width, bitmap.height));
    const canvas = $("picture");
    const width = canvas.width = Math.max(1, Math.round(bitmap.width * share));
    const height = canvas.height = Math.max(1, Math.round(bitmap.height * share));
    canvas.hidden = false;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    onWhite(context, width, height);
    const image = context.getImageData(0, 0, width, height), { data } = image;
    const large = enlarged(width, height), opacity = Number($("opacity").value);
    const above = Uint8Array.from(large, (value) => !(value <= limit));
    for (let at = 0; at < large.length; at++) {
      const value = large[at];
      const level = Math.min(Math.max(value <= limit ? 0.5 * value / Math.max(limit, 1e-6) : 1 - 0.5 * (1 - value) / Math.max(1 - limit, 1e-6), 0), 1);
      const strength = opacity * Math.min(Math.max((level - CALM) / (SURE - CALM), 0), 1), colour = 3 * Math.floor(255 * level);
      for (let channel = 0; channel < 3; channel++) {
        data[4 * at + channel] = data[4 * at + channel] * (1 - strength) + turbo[colour + channel] * strength;
      }
      const x = at % width;
      const edge = above[at] && ((x > 0 && !above[at - 1]) || (x < width - 1 && !above[at + 1]) || above[at - width] === 0 || above[at + width] === 0);
      if (edge && opacity) data.fill(255, 4 * at, 4 * at + 3);
    }
    context.putImageData(image, 0, 0);
    return count(above, width);
  }

  // Connected pixels, by an edge or a corner.
  function count(above, width) {
    let regions = 0;
    const open = [];
    for (let start = 0; start < above.length; start++) {
      if (!above[start]) continue;
      regions++;
      above[start] = 0;
      open.push(start);
      while (open.length) {
        const at = open.pop(), x = at % width;
        for (let across = x ? -1 : 0; across <= (x < width - 1 ? 1 : 0); across++) {
          for (const next of [at - width + across, at + across, at + width + across]) {
            if (above[next]) {
              above[next] = 0;
              open.push(next);
            }
          }
        }
      }
    }
    return regions;
  }

  const take = (files) => files.length && look(files[0], files[0].name || "The image");
  $("file").addEventListener("change", () => { take($("file").files); $("file").value = ""; });
  addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  addEventListener("dragleave", () => $("drop").classList.remove("over"));
  addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); take(event.dataTransfer.files); });
  addEventListener("paste", (event) => take(event.clipboardData.files));
  for (const id of ["threshold", "rate", "opacity"]) $(id).addEventListener("input", conclude);
  $("class").addEventListener("change", () => { choose(); if (bitmap) infer().catch(explain); });
  $("download").addEventListener("click", () => $("picture").toBlob((picture) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(picture);
    link.download = "inspection.png";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }));
  load().then(conclude, explain);
});
