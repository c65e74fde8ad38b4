"use strict";
// The player. wavesurfer.js draws the waveform, the regions, the timeline and the overview, scrolls and zooms. This file
// puts the pictures and rows of events into its scrolled area, and keeps the sources' sound in step with the recording's.

const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const COLORS = ["#3f90da", "#e8710a", "#22a06b", "#d6455d", "#a06cd5", "#c79a00", "#0fa3b1", "#d264b6", "#7a9e2e", "#7c83db",
                "#b9704f", "#5c95a8"];
const WAVE = 48, TIMES = 20, GAP = 6, LANE = 20, RECORDING = 136, SOURCE = 80, MOST_LISTED = 500;
const labels = [...new Set([...page.recordings.flatMap((each) => each.labels),
                            ...Object.values(page.references).flat().map((event) => event[2])])].sort();
const colorOf = (label) => COLORS[Math.max(0, labels.indexOf(label)) % COLORS.length];
const readable = (label) => label.replaceAll("_", " ");

let shown = null;  // what is on the screen: the wavesurfer, its regions, tracks and events
let opening = 0;

/** An element with properties and children; texts stay texts, whatever is in them. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function place(element, style) {
  Object.assign(element.style, style);
  return element;
}

function clock(seconds, digits = 1) {
  const whole = Math.max(0, seconds), minutes = Math.floor(whole / 60);
  const two = (number, width = 2) => String(number).padStart(width, "0");
  const rest = (whole % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${rest}`;
}

// ---------------------------------------------------------------------------------------------- the list of recordings

function listFiles() {
  const wanted = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (each) => `${each.name} ${each.labels.map(readable).join(" ")}`.toLowerCase();
  const found = page.recordings.filter((each) => wanted.every((word) => text(each).includes(word)));
  byId("files").replaceChildren(...found.slice(0, MOST_LISTED).map((each) => {
    const facts = `${clock(each.seconds, 0)} · ${each.labels.map(readable).join(", ") || "nothing detected"}`;
    const link = make("a", { href: `#${encodeURIComponent(each.name)}` }, each.name, make("small", {}, facts));
    if (shown && shown.entry === each) link.setAttribute("aria-current", "true");
    return make("li", {}, link);
  }));
  const more = found.length > MOST_LISTED ? `, the first ${MOST_LISTED} listed` : "";
  byId("count").textContent = `${found.length} of ${page.recordings.length} recordings${more}`;
  return found;
}

/** The data of a recording: in the page, or in a script beside it, which calls `receive`. */
function load(entry) {
  if (entry.inline) return Promise.resolve(entry.inline);
  return new Promise((resolve, reject) => {
    window.receive = resolve;
    const script = make("script", { src: entry.data });
    script.onload = () => script.remove();
    script.onerror = () => reject(new Error(`${decodeURIComponent(entry.data)} is missing; keep the folders view and audio ` +
                                            "beside this page"));
    document.head.append(script);
  });
}

async function open(entry) {
  const number = ++opening;
  try {
    const recording = await load(entry);
    if (number !== opening) return;
    close();
    show(entry, recording);
    listFiles();
    byId("files").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
  } catch (error) {
    fail(error.message);
  }
}

function fail(message) {
  byId("error").textContent = message;
  byId("error").hidden = false;
}

function close() {
  if (!shown) return;
  document.body.classList.remove("playing");
  for (const track of shown.tracks) {
    track.audio.pause();
    track.audio.removeAttribute("src");
  }
  shown.wave.destroy();
  shown = null;
}

// --------------------------------------------------------------------------------------------------------- a recording

function show(entry, recording) {
  byId("error").hidden = true;
  byId("name").textContent = document.title = recording.name;
  const rows = { ...(page.references[entry.name] && { reference: page.references[entry.name] }), ...recording.rows };
  const count = Object.values(recording.rows).at(-1).length;
  byId("facts").textContent = `${clock(recording.seconds)} · ${count} event${count === 1 ? "" : "s"}`;
  const tracks = recording.tracks.map((track, index) => ({
    ...track, index, solo: false, mute: index > 0,
    audio: Object.assign(new Audio(), { preload: "metadata", src: track.audio }),
  }));
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const peaks = [Float32Array.from(atob(recording.peaks), (sign) => sign.charCodeAt(0) / 255)];
  const regions = WaveSurfer.Regions.create();
  const look = { waveColor: color("--wave"), progressColor: color("--played"), cursorColor: color("--cursor") };
  const wave = WaveSurfer.create({
    container: byId("wave"), media: tracks[0].audio, peaks, duration: recording.seconds, height: WAVE, cursorWidth: 2, ...look,
    plugins: [
      regions,
      WaveSurfer.Minimap.create({ container: byId("minimap"), height: 30, overlayColor: "rgba(128,150,190,.25)", ...look }),
      WaveSurfer.Hover.create({ lineColor: color("--soft"), labelBackground: color("--ink"), labelColor: color("--paper"),
                                formatTimeCallback: (t) => clock(t, 2) }),
    ],
  });
  shown = { entry, recording, wave, regions, tracks, loop: null, marks: [], zoom: 0,
            events: [...Object.values(recording.rows).at(-1)].sort((a, b) => a[0] - b[0]) };
  wave.once("decode", () => {  // regions need the length, which is known from here on
    layOut(rows);
    listen();
    settle();
  });
}

/** Puts pictures and lanes below the waveform, in wavesurfer's scrolled area, and their names beside it. */
function layOut(rows) {
  const { recording, wave, tracks } = shown;
  const area = place(make("div"), { position: "relative", pointerEvents: "none" });
  const gutter = byId("gutter");
  gutter.replaceChildren();
  const timeline = place(make("div"), { position: "absolute", top: 0, left: 0, right: 0, height: `${TIMES}px` });
  area.append(timeline);
  let y = WAVE + TIMES;
  const head = (height, element) => {
    gutter.append(place(element, { top: `${y}px`, height: `${height}px` }));
    y += height + GAP;
  };
  const picture = (track, height) => {
    track.strip = place(make("div"), { position: "absolute", top: `${y - WAVE}px`, left: 0, right: 0, height: `${height}px`,
                                       overflow: "hidden", contain: "strict", background: "#000004" });
    track.strip.append(place(make("img", { src: track.picture, alt: "", draggable: false }), {
      position: "absolute", left: 0, top: 0, height: "100%", width: `${100 * track.span / recording.seconds}%` }));
    track.images = new Map();
    area.append(track.strip);
    head(height, describe(track));
  };
  picture(tracks[0], RECORDING);
  for (const [title, events] of Object.entries(rows)) {
    const lanes = stack(events);
    const height = Math.max(1, lanes.count) * LANE + 4;
    const row = { position: "absolute", top: `${y - WAVE}px`, left: 0, right: 0, height: `${height}px` };
    area.append(place(make("div"), { ...row, background: "var(--lane)" }),  // and above the loop, laid out on their own:
                place(make("div", {}, ...events.map((event, index) => mark(event, 2 + lanes.of[index] * LANE))),
                      { ...row, contain: "strict", zIndex: 6 }));
    head(height, make("div", {}, make("strong", { title }, title)));
  }
  for (const track of tracks.slice(1)) picture(track, SOURCE);
  area.style.height = `${y - WAVE}px`;
  gutter.style.height = `${y}px`;
  const wrapper = wave.getWrapper();
  wrapper.querySelector("[part=canvases]").after(area);
  wave.registerPlugin(WaveSurfer.Timeline.create({
    container: timeline, height: TIMES - 2, secondaryLabelOpacity: .8, formatTimeCallback: (t) => clock(t, 0), style: { color: "var(--soft)" } }));
}

/** Puts events that overlap above one another: the lane of each, and how many there are. */
function stack(events) {
  const ends = [];
  const of = new Array(events.length);
  for (const index of [...events.keys()].sort((a, b) => events[a][0] - events[b][0])) {
    const free = ends.findIndex((end) => end <= events[index][0]);
    of[index] = free < 0 ? ends.length : free;
    ends[of[index]] = events[index][1];
  }
  return { of, count: ends.length };
}

/** Shows an event. Not as a region of wavesurfer, which measures the layout anew for each: an hour has a thousand. */
function mark([start, end, label], top) {
  const seconds = shown.recording.seconds;
  const event = { start, end, element: make("div", { title: `${readable(label)}, ${start.toFixed(2)} to ${end.toFixed(2)} s` },
                                            readable(label)) };
  place(event.element, {
    position: "absolute", left: `${100 * start / seconds}%`, width: `${100 * (end - start) / seconds}%`, minWidth: "2px",
    top: `${top}px`, height: `${LANE - 2}px`, overflow: "hidden", borderRadius: "4px", pointerEvents: "auto",
    cursor: "pointer", background: colorOf(label), color: "white", textIndent: "6px", whiteSpace: "nowrap",
    font: "600 11.5px/18px system-ui, 'DejaVu Sans', sans-serif", textShadow: "0 0 2px rgba(0,0,0,.55)" });
  const only = (action) => (happening) => { happening.stopPropagation(); action(event); };
  event.element.onclick = only(jump);
  event.element.ondblclick = only(toggleLoop);
  shown.marks.push(event);
  return event.element;
}

/** The name, level and buttons of a track. */
function describe(track) {
  const { index } = track;
  const name = index ? readable(track.name) : "recording";
  const level = track.level === null ? "silent" : `${track.level > 0 ? "+" : "−"}${Math.abs(track.level).toFixed(1)} dB`;
  const button = (kind, text, title) => {
    const element = make("button", { className: kind, title }, text);
    element.onclick = () => { track[kind] = !track[kind]; settle(); };
    element.setAttribute("aria-label", title);
    return element;
  };
  track.buttons = { solo: button("solo", "Solo", `Hear ${name} alone`), mute: button("mute", "Mute", `Silence ${name}`) };
  const facts = make("small", index ? { title: "level over the whole length, relative to the recording" } : {},
                     index ? level : "as the detector hears it");
  track.head = make("div", {}, make("strong", { title: name }, name), facts,
                    make("div", { className: "buttons" }, track.buttons.solo, track.buttons.mute));
  if (index < 10) track.head.lastChild.append(make("kbd", {}, String(index)));
  if (index && labels.includes(track.name)) track.head.style.borderLeftColor = colorOf(track.name);
  return track.head;
}

/** Lets those tracks sound that are alone or, if none is, not muted. */
function settle() {
  const alone = shown.tracks.some((track) => track.solo);
  for (const track of shown.tracks) {
    track.audio.muted = alone ? !track.solo : track.mute;
    for (const kind of ["solo", "mute"]) track.buttons[kind].setAttribute("aria-pressed", String(track[kind]));
    track.head.classList.toggle("silent", track.audio.muted);
    track.strip.style.filter = track.audio.muted ? "brightness(.85) saturate(.8)" : "";
  }
}

/** Hears one track alone; again, or for the recording: all as at the beginning. */
function solo(index) {
  const { tracks } = shown;
  if (index >= tracks.length) return;
  const wanted = index > 0 && !(tracks[index].solo && tracks.filter((track) => track.solo).length === 1);
  for (const track of tracks) {
    track.solo = wanted && track.index === index;
    track.mute = track.index > 0;
  }
  settle();
}

// ------------------------------------------------------------------------------------------------------ sound and time

function listen() {
  const { wave, regions, tracks, recording } = shown;
  const leader = tracks[0].audio, followers = tracks.slice(1);
  const tell = () => {
    byId("time").replaceChildren(make("b", {}, clock(wave.getCurrentTime())), ` / ${clock(recording.seconds)}`);
  };
  wave.on("timeupdate", tell);
  tell();
  leader.addEventListener("play", () => document.body.classList.add("playing"));
  leader.addEventListener("pause", () => document.body.classList.remove("playing"));
  leader.addEventListener("error", () => leader.hasAttribute("src") && fail("the recording cannot be played; keep the folder " +
                                                                             "audio beside this page"));
  for (const happening of ["play", "playing", "pause", "waiting", "seeking", "seeked", "timeupdate"]) {
    leader.addEventListener(happening, () => followers.forEach((track) => follow(track, leader)));
  }
  for (const track of followers) {
    track.delay = 0;  // that a jump takes, in seconds
    track.audio.addEventListener("seeked", () => {
      const late = leader.currentTime - track.audio.currentTime;
      if (!leader.paused && !leader.seeking) track.delay = Math.max(0, Math.min(1, track.delay + late));
      follow(track, leader);
    });
  }
  regions.enableDragSelection({ color: "rgba(120,160,255,.18)" });
  regions.on("region-created", loopOver);
  regions.on("region-updated", (region) => { if (region === shown.loop) wave.setTime(region.start); });
  regions.on("region-double-clicked", (region, event) => {
    event.stopPropagation();
    toggleLoop();
  });
  regions.on("region-out", (region) => { if (region === shown?.loop && wave.isPlaying()) region.play(); });
  wave.on("finish", () => shown?.loop?.play());  // of a loop to the end, nothing is out
  for (const happening of ["scroll", "zoom", "resize", "redraw"]) wave.on(happening, showTiles);
}

/** Lets a source run if the recording runs, and brings it to the same time: by a jump or, if it is near, by its speed. */
function follow({ audio, delay }, leader) {
  const time = leader.currentTime, late = time - audio.currentTime;
  const running = !leader.paused && (leader.seeking || leader.readyState > 2);
  if (!running) audio.pause();
  if (audio.seeking || time > audio.duration - .1) return;  // the end of a jump calls this again
  if (Math.abs(late) > (running ? .2 : .01)) audio.currentTime = time + (running && !leader.seeking ? delay : 0);
  else {
    const most = audio.muted ? .5 : .03;  // which is not heard
    audio.playbackRate = Math.abs(late) < .008 ? 1 : 1 + Math.max(-most, Math.min(most, 3 * late));
  }
  if (running && audio.paused) audio.play().catch(() => {});
}

/** Shows the detailed pictures of what is seen, once the picture of the whole is too coarse. */
function showTiles() {
  if (!shown) return;
  const { wave, recording, tracks } = shown;
  const width = wave.getWrapper().clientWidth, fine = width > 6144, seen = wave.getWidth(), left = wave.getScroll();
  const [first, last] = [left - seen, left + 2 * seen].map((x) => Math.floor(x / width * recording.seconds / recording.tile));
  const wanted = `${fine} ${first} ${last}`;
  if (wanted === shown.tiles) return;
  shown.tiles = wanted;
  for (const { tiles, images, strip } of tracks) {
    for (const [index, image] of images) {
      if (fine && index >= first - 2 && index <= last + 2) continue;
      image.remove();
      images.delete(index);
    }
    for (let index = Math.max(0, first); fine && index <= Math.min(last, tiles.length - 1); index++) {
      if (images.has(index)) continue;
      const share = 100 * recording.tile / recording.seconds;
      const image = place(make("img", { src: tiles[index], alt: "", draggable: false }), {
        position: "absolute", top: 0, height: "100%", left: `${index * share}%`, width: "auto" });
      // the last tile is shorter than the others, by its own columns
      image.onload = () => { image.style.width = `${share * image.naturalWidth / 1024}%`; };
      images.set(index, image);
      strip.append(image);
    }
  }
}

function loopOver(region) {
  if (shown.loop && shown.loop !== region) shown.loop.remove();
  shown.loop = region;
  byId("loop").setAttribute("aria-pressed", "true");
  shown.wave.setTime(region.start);
}

/** Loops an event, or the one at the cursor or after it; without one, or again, ends the loop. */
function toggleLoop(event) {
  if (shown.loop) {
    shown.loop.remove();
    shown.loop = null;
    byId("loop").setAttribute("aria-pressed", "false");
    if (!event) return;
  }
  const time = shown.wave.getCurrentTime();
  const found = event ?? asSpan(shown.events.find(([, end]) => end > time) ?? shown.events.at(-1));
  if (found) shown.regions.addRegion({ start: found.start, end: found.end, color: "rgba(120,160,255,.18)" });
}

const asSpan = (event) => event && { start: event[0], end: event[1] };

/** Goes to an event, and scrolls there. */
function jump({ start }) {
  const { wave, recording } = shown;
  wave.setTime(start);
  const perSecond = wave.getWrapper().clientWidth / recording.seconds, left = wave.getScroll() / perSecond;
  const seen = wave.getWidth() / perSecond;
  if (start < left || start > left + .8 * seen) wave.setScrollTime(Math.max(0, start - .2 * seen));
}

function nextEvent() {
  const time = shown.wave.getCurrentTime();
  const found = shown.events.find(([start]) => start > time + .01);
  if (found) jump(asSpan(found));
}

function previousEvent() {
  const time = shown.wave.getCurrentTime() - (shown.wave.isPlaying() ? .4 : .01);  // while it plays, one has to get away
  const found = shown.events.findLast(([start]) => start < time);
  if (found) jump(asSpan(found));
}

function playPause() {
  const { wave, loop } = shown;
  const time = wave.getCurrentTime();
  if (!wave.isPlaying() && loop && (time < loop.start || time >= loop.end)) wave.setTime(loop.start);
  wave.playPause();
}

/** Zooms by a factor, around the cursor; without one, to the whole. */
function zoom(factor) {
  const { wave, recording } = shown;
  const whole = wave.getWidth() / recording.seconds;
  const wanted = factor ? Math.min(400, Math.max(whole, shown.zoom || whole) * factor) : whole;
  shown.zoom = wanted > whole * 1.01 ? wanted : 0;
  wave.zoom(shown.zoom);
  if (shown.zoom) wave.setScrollTime(Math.max(0, wave.getCurrentTime() - wave.getWidth() / shown.zoom / 2));
}

// ---------------------------------------------------------------------------------------------------- mouse and keyboard

function step(by) {
  const found = listFiles();
  const next = found[found.indexOf(shown?.entry) + by];
  if (next) location.hash = encodeURIComponent(next.name);
}

const KEYS = {
  " ": playPause, ArrowRight: nextEvent, ArrowLeft: previousEvent, ArrowDown: () => step(1), ArrowUp: () => step(-1),
  l: () => toggleLoop(), "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(.5), f: () => zoom(), "/": () => byId("search").focus(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !shown) return;
  if (event.target === byId("search")) {
    if (event.key === "Escape" || event.key === "Enter") byId("search").blur();
    return;
  }
  const action = /^[0-9]$/.test(event.key) ? () => solo(Number(event.key)) : KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  action();
});

for (const [id, action] of Object.entries({ play: playPause, next: nextEvent, previous: previousEvent, loop: () => toggleLoop(),
                                            in: () => zoom(2), out: () => zoom(.5), fit: () => zoom() })) {
  byId(id).onclick = (event) => { if (shown) action(); event.currentTarget.blur(); };
}
byId("search").oninput = listFiles;

function fromAddress() {
  const name = decodeURIComponent(location.hash.slice(1));
  open(page.recordings.find((each) => each.name === name) ?? page.recordings[0]);
}

byId("title").textContent = page.title;
document.body.classList.toggle("single", page.recordings.length === 1);
addEventListener("hashchange", fromAddress);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", fromAddress);  // the colours are drawn into canvases
listFiles();
fromAddress();
