// The page: it displays the state that Python sends and reports the user's actions to Python.
// It computes nothing but positions on the screen.

const PATHS = {
  like: "M2 21h4V9H2v12Zm20-11a2 2 0 0 0-2-2h-6.3l1-4.6v-.3c0-.4-.2-.8-.4-1.1L13.2 1 6.6 7.6C6.2 8 6 8.5 6 9v10a2 2 0 0 0 2 2h9a2 2 0 0 0 1.8-1.200l3-7.100c.1-.2.2-.500.2-.700v-2Z",
  dislike:
    "M22 3h-4v12h4V3ZM2 14a2 2 0 0 0 2 2h6.300l-1 4.600v.300c0 .4.2.800.4 1.100l1.1 1 6.6-6.600c.4-.4.6-.900.6-1.400V5a2 2 0 0 0-2-2H7a2 2 0 0 0-1.8 1.200l-3 7.100c-.1.2-.200.5-.200.700v2Z",
  save: "M17 3H7a2 2 0 0 0-2 2v16l7-3 7 3V5a2 2 0 0 0-2-2Z",
  why: "M11 17h2v-6h-2v6Zm1-15a10 10 0 1 0 0 20 10 10 0 0 0 0-20Zm0 18a8 8 0 1 1 0-16 8 8 0 0 1 0 16ZM11 9h2V7h-2v2Z",
  close:
    "m19 6.4-1.4-1.400L12 10.6 6.4 5 5 6.400l5.6 5.600L5 17.6 6.4 19l5.6-5.6 5.6 5.6 1.4-1.4-5.6-5.600L19 6.400Z",
  left: "M15.4 7.4 14 6l-6 6 6 6 1.4-1.4-4.6-4.6 4.6-4.600Z",
  right: "M8.6 16.6 13.2 12 8.6 7.4 10 6l6 6-6 6-1.4-1.400Z",
  tune: "M3 17v2h6v-2H3ZM3 5v2h10V5H3Zm10 16v-2h8v-2h-8v-2h-2v6h2ZM7 9v2H3v2h4v2h2V9H7Zm14 4v-2H11v2h10Zm-6-4h2V7h4V5h-4V3h-2v6Z",
  list: "M3 5h4v4H3V5Zm6 1v2h12V6H9Zm-6 5h4v4H3v-4Zm6 1v2h12v-2H9Zm-6 5h4v4H3v-4Zm6 1v2h12v-2H9Z",
  grid: "M3 3h8v8H3V3Zm10 0h8v8h-8V3ZM3 13h8v8H3v-8Zm10 0h8v8h-8v-8Z",
  theme: "M12 3a9 9 0 1 0 9 9c0-.5 0-.9-.1-1.400A5.4 5.4 0 0 1 13.4 3.100c-.5-.1-.9-.1-1.4-.1Z",
  dice: "M5 3h14a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2Zm3 3.500a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3Zm8 8a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3Zm-4-4a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3Z",
  brand:
    "M4 4h2v2h2V4h8v2h2V4h2v16h-2v-2h-2v2H8v-2H6v2H4V4Zm2 4v2h2V8H6Zm0 4v2h2v-2H6Zm10-4v2h2V8h-2Zm0 4v2h2v-2h-2ZM10 8.5v7l6-3.5-6-3.500Z",
};
const icon = (name) =>
  `<svg viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d="${PATHS[name]}"/></svg>`;
const safe = (text) => String(text ?? "").replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
const HUES = {
  Action: 8,
  Adventure: 28,
  Animation: 45,
  Children: 55,
  Comedy: 40,
  Crime: 350,
  Documentary: 195,
  Drama: 222,
  Fantasy: 282,
  "Film-Noir": 250,
  Horror: 358,
  IMAX: 205,
  Musical: 312,
  Mystery: 262,
  Romance: 334,
  "Sci-Fi": 188,
  Thriller: 212,
  War: 85,
  Western: 24,
};
const genreHue = (genre) =>
  HUES[genre] ?? [...String(genre ?? "")].reduce((sum, sign) => (sum * 31 + sign.charCodeAt(0)) % 360, 210);
const hue = (movie) => genreHue(movie.genres[0]);
const facts = (movie) => [movie.year, movie.genres.slice(0, 3).join(", ")].filter(Boolean).join(" · ");
const short = (movie) => movie.title.replace(/ \(.*\)$/, ""); // "Amelie (Le Fabuleux destin …)"
const amount = (value) => (Number.isInteger(value) ? value : +value.toPrecision(3));
const percent = (share) => `${Math.round(100 * share)}%`;
const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const stars = (rating) =>
  `<span class="stars" role="img" aria-label="${rating} of 5 stars">${"★".repeat(Math.floor(rating))}${rating % 1 ? "½" : ""}</span>`;
const day = (seconds) =>
  new Date(seconds * 1000).toLocaleDateString(undefined, {
    year: "numeric",
    month: "short",
    day: "numeric",
    timeZone: "UTC",
  });
const LIST_OF_ACTION = { like: "likes", dislike: "dislikes", save: "saves" };
const DONE = {
  like: "Liked",
  dislike: "Disliked",
  save: "Saved",
  unlike: "No longer liked:",
  undislike: "No longer disliked:",
  unsave: "No longer saved:",
};
const storage = {
  get(name) {
    try {
      return JSON.parse(localStorage.getItem(`movierec.${name}`));
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`movierec.${name}`, JSON.stringify(value));
    } catch {
      /* a browser that stores nothing */
    }
  },
};

const FRAME = `
<header class="head">
  <h1 class="brand">${icon("brand")}movierec</h1>
  <div class="who" role="group" aria-label="User">
    <label for="mr-user">User</label><input class="number" id="mr-user" type="number" min="0" value="0" inputmode="numeric">
    <input class="slider" type="range" min="0" max="0" value="0" aria-label="User, by slider">
    <button class="button" data-do="surprise">${icon("dice")}<span>Surprise me</span></button>
    <button class="button" data-do="new-user" aria-pressed="false">I’m new here</button>
  </div>
  <div class="tools">
    <button class="button" data-do="filters" aria-expanded="false" aria-controls="mr-filters" aria-label="Filters and options">${icon("tune")}<span>Filters</span></button>
    <button class="round" data-do="view" aria-label="Show as a list"></button>
    <button class="round" data-do="theme" aria-label="Change between light and dark">${icon("theme")}</button>
  </div>
</header>
<div class="wait" aria-hidden="true"></div>
<div class="banner" role="alert" hidden><p></p><button class="button main" data-do="start">Try again</button></div>
<section class="filters" id="mr-filters" aria-label="Filters and options" hidden>
  <div class="field"><label for="mr-diversity">Diversity of the top picks <output></output></label><input id="mr-diversity" type="range" min="0" max="1" step="0.1" value="0"></div>
  <div class="field"><label for="mr-calibrate">Genres as in the history <output></output></label><input id="mr-calibrate" type="range" min="0" max="1" step="0.1" value="0"></div>
  <div class="field"><label for="mr-k">Movies per row</label><select id="mr-k"><option>10</option><option selected>20</option><option>30</option><option>50</option></select></div>
  <div class="field"><label for="mr-from">Years</label><div class="line"><input id="mr-from" type="number" aria-label="from year" inputmode="numeric"> – <input id="mr-to" type="number" aria-label="to year" inputmode="numeric"></div></div>
  <div class="field"><label class="check"><input type="checkbox" id="mr-feedback" checked>Use my feedback</label><label class="check"><input type="checkbox" id="mr-hide">Hide movies shown before</label><button class="button" data-do="others" hidden>Show other movies</button></div>
  <div class="field wide"><label id="mr-genres">Genres</label><div class="genres" role="group" aria-labelledby="mr-genres"></div></div>
</section>
<main>
  <section class="welcome" aria-labelledby="mr-welcome" hidden>
    <h2 id="mr-welcome">Which movies do you love?</h2><p class="quiet">One is enough to start; three or four make better recommendations.</p>
    <div class="combo"><input role="combobox" aria-expanded="false" aria-controls="mr-found" aria-autocomplete="list" aria-label="A movie's title" placeholder="The Matrix, Amélie, Toy Story …" autocomplete="off" spellcheck="false"><ul id="mr-found" role="listbox" aria-label="Search results" hidden></ul></div>
    <div class="chips picked"></div>
  </section>
  <div class="stage"><section class="hero" aria-label="First pick"></section><aside class="panel profile" aria-label="Your profile"></aside></div>
  <div class="rows"></div>
</main>
<footer><span>Ratings: MovieLens, GroupLens Research.</span><span class="system"></span><span class="tmdb" hidden></span><span>On a card: <kbd>←</kbd> <kbd>→</kbd> move, <kbd>L</kbd> like, <kbd>D</kbd> dislike, <kbd>S</kbd> save, <kbd>W</kbd> why.</span></footer>
<dialog aria-label="Details"><div class="sheet"></div></dialog>
<div class="toasts" role="status" aria-live="polite"></div>`;

function titleOf(row, likes) {
  if (row.kind === "because")
    return `Because you ${likes.has(row.about.item_idx) ? "liked" : "watched"} <em>${safe(short(row.about))}</em>`;
  if (row.kind === "genre") return `<em>${safe(row.about)}</em> for you`;
  return {
    top: "Top picks for you",
    trending: "Trending now",
    gems: "Hidden gems",
    saves: "Saved for later",
  }[row.kind];
}
const NOTES = {
  top: "the ranker’s list",
  trending: "popular at present",
  gems: "little known, and likely yours",
  genre: "one of your genres",
  because: "similar movies",
  saves: "your shelf",
};

const poster = (movie, base, eager) =>
  `<div class="poster" style="--hue:${hue(movie)}"><b aria-hidden="true">${safe(short(movie))}</b><img alt="" ${eager ? "" : 'loading="lazy" '}decoding="async" src="${safe(base)}${movie.item_idx}"></div>`;
const acts = (labels) =>
  ["like", "dislike", "save"]
    .map(
      (name) =>
        `<button class="${labels ? "button" : ""}" data-act="${name}" aria-pressed="false" tabindex="${labels ? 0 : -1}" title="${name[0].toUpperCase() + name.slice(1)}">${icon(name)}${labels ? `<span>${name[0].toUpperCase() + name.slice(1)}</span>` : ""}</button>`,
    )
    .join("") +
  `<button class="${labels ? "button" : ""}" data-do="explain" tabindex="${labels ? 0 : -1}" title="Why this?">${icon("why")}${labels ? "<span>Why this?</span>" : ""}</button>`;

function makeCard(movie, base) {
  const card = document.createElement("li");
  card.className = "card";
  card.dataset.item = movie.item_idx;
  card.tabIndex = -1;
  card.innerHTML = `<span class="badge rank" hidden></span><span class="badge move" hidden></span>${poster(movie, base)}<h3 title="${safe(movie.title)}">${safe(short(movie))}</h3><p class="facts">${safe(facts(movie))}</p><p class="match"><i></i><span></span></p><p class="reason"></p><div class="acts">${acts(false)}</div>`;
  return card;
}

// The same movie keeps its element when rows change, so that it can be seen to move and nothing loads twice.
function fillCard(card, movie, row, rankChanges) {
  const [rank, move, reason, match] = [".rank", ".move", ".reason", ".match"].map((name) =>
    card.querySelector(name),
  );
  rank.hidden = row.kind !== "top";
  rank.textContent = movie.rank;
  const places = row.kind === "top" ? rankChanges[movie.item_idx] : 0;
  move.hidden = places === 0 || places === undefined;
  move.className = `badge move ${places === null ? "new" : places > 0 ? "up" : "down"}`;
  move.textContent = places === null ? "new" : places > 0 ? `▲${places}` : `▼${-places}`;
  move.setAttribute(
    "aria-label",
    places === null ? "new in this list" : `${Math.abs(places)} places ${places > 0 ? "up" : "down"}`,
  );
  match.hidden = reason.hidden = movie.match === undefined;
  if (movie.match !== undefined) {
    match.firstChild.style.setProperty("--part", percent(Math.max(movie.match, 0.02)));
    match.lastChild.textContent = percent(movie.match);
    match.title = `Score ${movie.score.toFixed(2)}: ${percent(movie.match)} of the way from your last candidate to your first`;
    reason.textContent = reason.title = movie.reason;
    reason.classList.toggle("boosted", movie.reason.startsWith("Boosted by your likes"));
  }
  card.setAttribute("aria-label", [movie.title, facts(movie), movie.reason].filter(Boolean).join(". "));
}

const bars = (list, hueFor, value) => {
  const most = Math.max(...list.map((one) => one.share), 1e-9);
  return `<div class="bars">${list.map((one) => `<span>${safe(one.name)}</span><span class="track"><i style="width:${percent(one.share / most)};--hue:${hueFor(one.name)}"></i></span><span class="value">${value(one)}</span>`).join("")}</div>`;
};
const columns = (list) => {
  const most = Math.max(...list.map((one) => one.share), 1e-9);
  return `<ol class="columns" aria-label="Decades">${list.map((one) => `<li title="${safe(one.name)}s: ${percent(one.share)}"><i style="height:${percent((0.72 * one.share) / most)}"></i><span aria-label="${safe(one.name)}s: ${percent(one.share)}">${safe(one.name).slice(2)}s</span></li>`).join("")}</ol>`;
};

// what is expected of a movie: "12% to be watched within 30 days, if you watch anything · about 4.1 stars"
const outlook = (why) => {
  const { probability, expected_rating: stars } = why.movie;
  const days = Math.max(Math.round(why.horizon_days), 1);
  const when = why.horizon_days === null ? "next" : `within ${days} days, if you watch anything`;
  const parts = [];
  if (typeof probability === "number") parts.push(`${probability < 0.01 ? "less than 1%" : percent(probability)} to be watched ${when}`);
  if (typeof stars === "number") parts.push(`about ${stars.toFixed(1)} stars`);
  return parts.length ? `<p class="quiet outlook">${parts.join(" · ")}</p>` : "";
};

// five bars: what the features come down to; what speaks against a movie points to the left
const plain = (reasons) => {
  const most = Math.max(...reasons.map((one) => Math.abs(one.contribution)), 1e-9);
  const row = (one) =>
    `<li><span>${safe(one.reason)}</span><span class="axis"><i class="${one.contribution < 0 ? "less" : ""}" style="--part:${percent(Math.abs(one.contribution) / most / 2)}"></i></span><span class="value">${one.contribution < 0 ? "−" : "+"}${Math.abs(one.contribution).toFixed(2)}</span></li>`;
  return `<ul class="shares">${reasons.map(row).join("")}</ul>`;
};
const own = (movies) =>
  movies.length
    ? `<p class="quiet" style="margin-top:8px">It depends most on ${movies.map((one) => `<b>${safe(one.title)}</b>`).join(" and ")}: without ${movies.length > 1 ? "either" : "it"}, its score would be lower.</p>`
    : `<p class="quiet" style="margin-top:8px">It depends on no single movie of yours.</p>`;

function whySheet(why, base) {
  const most = Math.max(
    ...why.contributions.map((share) => Math.abs(share.contribution)),
    Math.abs(why.others),
    1e-9,
  );
  const bar = (name, meaning, adds, value) =>
    `<li><span>${safe(name)}<small>${safe(meaning)}${value === null || value === undefined ? "" : ` = ${amount(value)}`}</small></span><span class="axis"><i class="${adds < 0 ? "less" : ""}" style="--part:${percent(Math.abs(adds) / most / 2)}"></i></span><span class="value">${adds < 0 ? "−" : "+"}${Math.abs(adds).toFixed(2)}</span></li>`;
  return `<header>${poster(why.movie, base, true)}<div><p class="quiet">Why this?</p><h2>${safe(why.movie.title)}</h2><p class="quiet">${safe(facts(why.movie))}</p><p style="margin-top:8px">${safe(why.movie.reason)}.</p><p class="quiet">Rank ${why.movie.rank} of ${why.candidates} candidates, score ${why.movie.score.toFixed(2)}</p>${outlook(why)}</div><button class="round" data-do="close" aria-label="Close">${icon("close")}</button></header>
  <section><h3>In plain words</h3>${plain(why.reasons)}${own(why.own_movies)}</section>
  <details><summary style="margin-bottom:8px">Details: sources and features</summary>
  ${why.sources.length ? `<section><h3>Sources that retrieved it</h3><div class="bars">${why.sources.map((one) => `<span>${safe(one.source)}${one.source === why.top_source ? " ◂" : ""}</span><span class="track"><i style="width:${percent(20 / (19 + one.rank))}"></i></span><span class="value">rank ${one.rank}</span>`).join("")}</div><p class="quiet" style="margin-top:8px">${why.sources.some((one) => one.source === why.top_source) ? "◂ contributed most to its rank." : `${safe(why.top_source)} contributed most to its rank, without having retrieved it.`}</p></section>` : ""}
  ${why.contributions.length ? `<section><h3>Contributions to its score</h3><ul class="shares">${why.contributions.map((share) => bar(share.feature, share.meaning, share.contribution, share.value)).join("")}${bar("everything else", "all other features together", why.others)}</ul></section>` : `<p class="quiet">This system can’t attribute its score to features.</p>`}
  </details>`;
}

const closing = (title, sub) =>
  `<header><div><h2>${title}</h2><p class="quiet">${sub}</p></div><button class="round" data-do="close" aria-label="Close">${icon("close")}</button></header>`;

function historySheet(detail) {
  const most = Math.max(...detail.genres.map((one) => one.movies), 1),
    total = detail.movies.length;
  return `${closing("History", `${total === 100 ? "The last 100" : total} movies, the latest first`)}
  <section><h3>Genres: movies, and mean stars</h3>${bars(
    detail.genres.slice(0, 12).map((one) => ({ ...one, share: one.movies / most })),
    genreHue,
    (one) => `${one.movies} · ${one.stars === null ? "–" : `★ ${one.stars.toFixed(1)}`}`,
  )}</section>
  <section><h3>Movies</h3><table><thead><tr><th>Movie</th><th>Stars</th><th class="n">When</th></tr></thead><tbody>${detail.movies.map((movie) => `<tr><td>${safe(movie.title)} <small class="quiet">${movie.year ?? ""}</small></td><td>${movie.rating === null ? "–" : stars(movie.rating)}</td><td class="n">${day(movie.timestamp)}</td></tr>`).join("")}</tbody></table></section>`;
}

function debugSheet(debug) {
  const named = (list, note) =>
    `<ol>${list.map((one) => `<li>${safe(one.title)} <small>${note(one)}</small></li>`).join("")}</ol>`;
  return `${closing("How this list was made", `${safe(debug.system)}, ${safe(debug.user_context ?? "no pool")}, ${debug.events} events, ${debug.pool.length} candidates`)}
  <section><h3>Steps</h3>${bars(
    Object.entries(debug.milliseconds).map(([name, ms]) => ({ name, share: ms })),
    () => 200,
    (one) => `${one.share.toFixed(1)} ms`,
  )}</section>
  <section><h3>The list</h3><table><thead><tr><th></th><th>Movie</th><th>Top source</th><th class="n">Score</th></tr></thead><tbody>${debug.items.map((one) => `<tr><td class="n">${one.rank}</td><td>${safe(one.title)}</td><td>${safe(one.top_source)}</td><td class="n">${one.score === null ? "–" : one.score.toFixed(2)}</td></tr>`).join("")}</tbody></table></section>
  <section><h3>Candidates by source</h3>${Object.entries(debug.sources)
    .map(
      ([name, list]) =>
        `<details><summary>${safe(name)}: ${safe(shorten(list[0]?.title ?? "nothing", 40))}</summary>${named(list, (one) => (one.score === null ? "" : one.score.toPrecision(3)))}</details>`,
    )
    .join("")}</section>`;
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "mr";
  root.innerHTML = FRAME;
  el.append(root);
  const $ = (name) => root.querySelector(name),
    get = (name) => model.get(name);
  const base = document.querySelector('meta[name="movierec-posters"]')?.content ?? get("poster_url");
  const dialog = $("dialog"),
    input = $(".combo input"),
    found = $("#mr-found");
  let number = 0,
    busy = 0,
    lost = 0,
    opener = null,
    chosen = -1,
    timer = 0,
    saves = [];
  const waiting = new Map(); // number of a message → when it was sent

  // Messages to Python, and its answers
  function send(action, args = {}) {
    waiting.set(++number, performance.now());
    root.dataset.sent = number;
    model.send({ action, arguments: args, number });
    busy ||= setTimeout(() => root.classList.add("busy"), 200);
    lost ||= setTimeout(() => banner("The program behind this page doesn’t answer.", "reload"), 20_000);
  }
  function received({ done }) {
    root.dataset.took = Math.round(performance.now() - waiting.get(done));
    root.dataset.answered = done;
    waiting.delete(done);
    if (waiting.size) return;
    clearTimeout(busy);
    clearTimeout(lost);
    busy = lost = 0;
    root.classList.remove("busy");
  }
  function banner(text, what = "start") {
    $(".banner").hidden = !text;
    $(".banner p").textContent = text ?? "";
    $(".banner button").dataset.do = what;
    $(".banner button").textContent = what === "reload" ? "Load again" : "Try again";
  }
  function toast(text, undo) {
    const note = document.createElement("div");
    note.className = "toast";
    note.innerHTML = `<span>${safe(text)}</span>`;
    if (undo) {
      const button = document.createElement("button");
      button.textContent = "Undo";
      button.onclick = () => {
        note.remove();
        undo();
      };
      note.append(button);
    }
    $(".toasts").replaceChildren(note);
    setTimeout(() => note.remove(), 7_000);
  }

  // Rows
  function drawRows() {
    const rows = [...get("rows")],
      rankChanges = get("rank_changes");
    saves = get("feedback").saves ?? [];
    if (saves.length) rows.splice(1, 0, { kind: "saves", about: null, items: [...saves].reverse() });
    const place = $(".rows"),
      top = place.getBoundingClientRect().top;
    const before = new Map(
      [...place.querySelectorAll(".card")].map((card) => [card, card.getBoundingClientRect()]),
    );
    const active = document.activeElement?.closest?.(".card");
    const old = new Map([...place.querySelectorAll(".row")].map((row) => [row.dataset.key, row]));
    const seen = new Map();
    const sections = rows.map((row) => {
      const kind =
        row.kind + (row.kind === "genre" ? row.about : row.kind === "because" ? row.about.item_idx : "");
      seen.set(kind, true);
      return drawRow(old.get(kind), kind, row, rankChanges);
    });
    place.replaceChildren(...sections);
    if (!rows.length)
      place.innerHTML = get("notes").length
        ? `<p class="empty">${safe(get("notes").join(" "))}</p>`
        : placeholders();
    if (active && place.contains(active)) active.focus({ preventScroll: true });
    glide(before, top - place.getBoundingClientRect().top);
  }
  function drawRow(section, key, row, rankChanges) {
    if (!section) {
      section = document.createElement("section");
      section.className = "row";
      section.dataset.key = key;
      section.dataset.kind = row.kind;
      section.innerHTML = `<header><h2 id="mr-${safe(key)}"></h2><small>${NOTES[row.kind]}</small><span class="scroll"><button data-do="scroll" data-by="-1" tabindex="-1" aria-label="Scroll back">${icon("left")}</button><button data-do="scroll" data-by="1" tabindex="-1" aria-label="Scroll on">${icon("right")}</button></span></header><ul class="cards" aria-labelledby="mr-${safe(key)}"></ul>`;
    }
    section.querySelector("h2").innerHTML = titleOf(
      row,
      new Set((get("feedback").likes ?? []).map((movie) => movie.item_idx)),
    );
    const list = section.querySelector(".cards"),
      have = new Map([...list.children].map((card) => [+card.dataset.item, card]));
    const cards = row.items.map((movie) => {
      const card = have.get(movie.item_idx) ?? makeCard(movie, base);
      fillCard(card, movie, row, rankChanges);
      return card;
    });
    const scrolled = list.scrollLeft;
    if (cards.length !== list.children.length || cards.some((card, at) => list.children[at] !== card))
      list.replaceChildren(...cards);
    list.scrollLeft = scrolled;
    if (!cards.some((card) => card.tabIndex === 0) && cards.length) rove(cards[0]);
    return section;
  }
  const placeholders = () =>
    `<section class="row ghost" aria-hidden="true"><div class="cards">${`<div class="card"><div class="poster"></div><p></p><p style="width:60%"></p></div>`.repeat(8)}</div></section>`;
  function glide(before, shift) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    for (const card of $(".rows").querySelectorAll(".card")) {
      const now = card.getBoundingClientRect(),
        then = before.get(card);
      if (now.bottom < 0 || now.top > innerHeight || now.right < 0 || now.left > innerWidth) continue;
      if (!then) {
        if (before.size)
          card.animate([{ opacity: 0, transform: "scale(.94)" }, {}], { duration: 260, easing: "ease-out" });
        continue;
      }
      const [x, y] = [then.left - now.left, then.top - now.top - shift];
      if (x || Math.abs(y) > 1)
        card.animate([{ transform: `translate(${x}px, ${y}px)` }, {}], {
          duration: 420,
          easing: "cubic-bezier(.2,.8,.2,1)",
        });
    }
  }
  function rove(card) {
    for (const one of card.parentElement.children) {
      one.tabIndex = one === card ? 0 : -1;
      for (const button of one.querySelectorAll("button")) button.tabIndex = one === card ? 0 : -1;
    }
  }
  function press() {
    const feedback = get("feedback");
    for (const [act, kind] of Object.entries(LIST_OF_ACTION)) {
      const items = new Set((feedback[kind] ?? []).map((movie) => movie.item_idx));
      for (const button of root.querySelectorAll(`[data-act="${act}"]`))
        button.setAttribute("aria-pressed", items.has(+button.closest("[data-item]").dataset.item));
    }
  }
  function drawHero() {
    const movie = get("rows")[0]?.items[0],
      hero = $(".hero");
    hero.hidden = !movie;
    if (!movie) return;
    hero.dataset.item = movie.item_idx;
    hero.style.setProperty("--hue", hue(movie));
    hero.innerHTML = `${poster(movie, base, true)}<div><p class="kicker">No. 1 for ${get("viewer").user === null ? "you" : `user ${get("viewer").user}`}</p><h2 title="${safe(movie.title)}">${safe(short(movie))}</h2><p class="facts">${safe(facts(movie))}</p><p class="reason">${safe(movie.reason)}</p><div class="acts">${acts(true)}</div></div>`;
    hero.querySelector("[data-act=like]").classList.add("main");
  }

  // The profile panel, the picked movies and the rest
  function drawProfile() {
    const profile = get("profile"),
      feedback = get("feedback"),
      viewer = get("viewer");
    const last = [
      ...(feedback.likes ?? [])
        .slice(-4)
        .reverse()
        .map((movie) => ["like", movie]),
      ...(feedback.dislikes ?? [])
        .slice(-3)
        .reverse()
        .map((movie) => ["dislike", movie]),
    ];
    const sub =
      viewer.user === null
        ? `${viewer.picked.length} named`
        : `${viewer.movies === 100 ? "100+" : viewer.movies} movies${viewer.stars ? ` · ★ ${viewer.stars.toFixed(1)}` : ""}`;
    $(".profile").innerHTML = `<h2>Your profile <small>${sub}</small></h2>
    ${profile.genres?.length ? bars(profile.genres, genreHue, (one) => percent(one.share)) : `<p class="quiet">No data yet: name or like a movie.</p>`}
    ${profile.decades?.length > 1 ? columns(profile.decades) : ""}
    ${last.length ? `<div><p class="quiet" style="margin-bottom:7px">Your feedback</p><div class="chips">${last.map(([act, movie]) => `<span class="chip ${act}" data-item="${movie.item_idx}">${icon(act)}<span>${safe(movie.title)}</span><button data-undo="un${act}" aria-label="Take back: ${act} ${safe(movie.title)}">${icon("close")}</button></span>`).join("")}</div></div>` : viewer.user === null ? "" : `<p class="quiet">Like or dislike a movie: the page changes at once.</p>`}
    <div class="chips">${viewer.user === null ? "" : `<button class="button" data-do="history">History</button><button class="button" data-do="debug">How this list was made</button>`}</div>`;
  }
  function drawViewer() {
    const viewer = get("viewer"),
      about = get("about"),
      most = Math.max((about.users ?? 1) - 1, 0);
    for (const field of [$(".number"), $(".slider")]) {
      field.max = most;
      if (viewer.user !== null && document.activeElement !== field) field.value = viewer.user;
    }
    $('.who [data-do="new-user"]').setAttribute("aria-pressed", viewer.user === null);
    $(".welcome").hidden = viewer.user !== null;
    $(".picked").innerHTML = (viewer.picked ?? [])
      .map(
        (movie) =>
          `<span class="chip" data-item="${movie.item_idx}"><span>${safe(movie.title)}</span><button data-do="unpick" aria-label="Remove ${safe(movie.title)}">${icon("close")}</button></span>`,
      )
      .join("");
    $(".system").textContent = about.dataset
      ? `${about.movies.toLocaleString()} movies, ${about.users.toLocaleString()} users of ${about.dataset}, ranked by ${about.system}.`
      : "";
    $(".tmdb").hidden = !about.attribution;
    if (about.attribution)
      $(".tmdb").innerHTML =
        `Posters: <a href="${safe(about.attribution.link)}" rel="noreferrer">TMDB</a>. ${safe(about.attribution.text)}`;
    $('[data-do="others"]').hidden = !viewer.hide_shown;
    $("#mr-hide").checked = viewer.hide_shown;
    $("#mr-feedback").checked = viewer.use_feedback;
    if (about.dataset)
      storage.set(
        "visit",
        viewer.user === null
          ? {
              dataset: about.dataset,
              movies: about.movies,
              newUser: {
                picked: items(viewer.picked),
                ...Object.fromEntries(
                  Object.values(LIST_OF_ACTION).map((kind) => [kind, items(get("feedback")[kind])]),
                ),
              },
            }
          : { dataset: about.dataset, movies: about.movies, user: viewer.user },
      );
  }
  function drawFilters() {
    const options = get("options"),
      about = get("about");
    for (const name of ["diversity", "calibrate"]) {
      $(`#mr-${name}`).value = options[name];
      $(`[for=mr-${name}] output`).textContent = options[name]
        ? `${Math.round(options[name] * 10)} of 10`
        : "off";
    }
    $("#mr-k").value = options.k;
    [
      ["#mr-from", options.from_year, about.years?.[0]],
      ["#mr-to", options.to_year, about.years?.[1]],
    ].forEach(([name, year, hint]) => {
      if (document.activeElement !== $(name)) $(name).value = year ?? "";
      $(name).placeholder = hint ?? "";
    });
    const focus = document.activeElement?.dataset?.genre;
    $(".genres").innerHTML = (about.genres ?? [])
      .map(
        (name) =>
          `<button data-genre="${safe(name)}" aria-pressed="${options.genres.includes(name)}">${safe(name)}</button>`,
      )
      .join("");
    if (focus) root.querySelector(`[data-genre="${CSS.escape(focus)}"]`)?.focus();
  }
  function drawFound() {
    const list = get("search_results")[input.value.trim()] ?? [];
    chosen = list.length ? 0 : -1;
    found.innerHTML = list
      .map(
        (movie, at) =>
          `<li role="option" id="mr-found-${at}" data-item="${movie.item_idx}" aria-selected="${at === chosen}">${poster(movie, base)}<span>${safe(movie.title)}<small>${safe(facts(movie))}</small></span></li>`,
      )
      .join("");
    open(list.length > 0);
  }
  function open(yes) {
    found.hidden = !yes;
    input.setAttribute("aria-expanded", yes);
    input.setAttribute("aria-activedescendant", yes && chosen >= 0 ? `mr-found-${chosen}` : "");
  }
  function pickMovie(option) {
    if (!option) return;
    send("pick_movie", { item: +option.dataset.item });
    input.value = "";
    open(false);
    input.focus();
  }
  function drawDetail() {
    const detail = get("detail");
    if (!detail) {
      if (dialog.open) dialog.close();
      return;
    }
    $(".sheet").innerHTML = {
      why: () => whySheet(detail, base),
      history: () => historySheet(detail),
      debug: () => debugSheet(detail),
    }[detail.kind]();
    if (!dialog.open) {
      opener = document.activeElement;
      dialog.showModal();
    }
    dialog.scrollTop = 0;
  }
  function drawStatus() {
    const { unavailable, problem } = get("status");
    banner(
      unavailable
        ? `${unavailable[0].toUpperCase()}${unavailable.slice(1)}. The page shows earlier results.`
        : null,
    );
    if (problem) toast(`${problem[0].toUpperCase()}${problem.slice(1)}.`);
  }

  // Actions
  function giveFeedback(item, act) {
    const title = titleAt(item);
    send("give_feedback", { item, action: act });
    toast(`${DONE[act]} ${shorten(title, 44)}`, () =>
      send("give_feedback", { item, action: act.startsWith("un") ? act.slice(2) : `un${act}` }),
    );
  }
  const items = (movies) => (movies ?? []).map((movie) => movie.item_idx);
  const titleAt = (item) =>
    root.querySelector(`[data-item="${item}"] :is(h3, h2, .chip > span)`)?.textContent ?? "the movie";
  function toggle(element, act) {
    const item = +element.closest("[data-item]").dataset.item;
    const on = (get("feedback")[LIST_OF_ACTION[act]] ?? []).some((movie) => movie.item_idx === item);
    giveFeedback(item, on ? `un${act}` : act);
  }
  const COMMANDS = {
    surprise: () => send("choose_random_user"),
    "new-user": () =>
      send(...(get("viewer").user === null ? ["choose_user", { user: 0 }] : ["become_new_user"])),
    start: () => send("start"),
    reload: () => location.reload(),
    others: () => send("set_options", { hide_shown: true }),
    history: () => send("open_panel", { kind: "history" }),
    debug: () => send("open_panel", { kind: "debug" }),
    close: () => dialog.close(),
    unpick: (button) => send("unpick_movie", { item: +button.closest("[data-item]").dataset.item }),
    explain: (button) => send("explain_movie", { item: +button.closest("[data-item]").dataset.item }),
    scroll: (button) => {
      const list = button.closest(".row").querySelector(".cards");
      list.scrollBy({ left: button.dataset.by * list.clientWidth * 0.85, behavior: "smooth" });
    },
    filters: (button) => {
      const panel = $(".filters");
      panel.hidden = !panel.hidden;
      button.setAttribute("aria-expanded", !panel.hidden);
    },
    view: () => view(root.dataset.view === "list" ? "grid" : "list"),
    theme: () => {
      const dark = getComputedStyle(root).colorScheme === "dark";
      storage.set("theme", (root.dataset.theme = dark ? "light" : "dark"));
    },
  };
  function view(name) {
    storage.set("view", (root.dataset.view = name));
    const button = $('[data-do="view"]'),
      other = name === "list" ? "grid" : "list";
    button.innerHTML = icon(other);
    button.setAttribute("aria-label", `Show as a ${other}`);
  }
  root.addEventListener("click", (event) => {
    const at = event.target.closest(
      "[data-act], [data-undo], [data-genre], [data-do], [role=option], .card .poster",
    );
    if (!at) return;
    if (at.dataset.act) toggle(at, at.dataset.act);
    else if (at.dataset.undo) giveFeedback(+at.closest("[data-item]").dataset.item, at.dataset.undo);
    else if (at.dataset.genre) {
      const had = get("options").genres,
        name = at.dataset.genre;
      send("set_options", {
        genres: had.includes(name) ? had.filter((one) => one !== name) : [...had, name],
      });
    } else if (at.dataset.do) COMMANDS[at.dataset.do](at);
    else if (at.matches("[role=option]")) pickMovie(at);
    else if (!at.closest('[data-kind="saves"]'))
      send("explain_movie", { item: +at.closest("[data-item]").dataset.item });
  });
  root.addEventListener("keydown", (event) => {
    const card = event.target.closest?.(".card");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const side = {
      ArrowRight: "nextElementSibling",
      ArrowLeft: "previousElementSibling",
      ArrowDown: "nextElementSibling",
      ArrowUp: "previousElementSibling",
    }[event.key];
    const act = { l: "like", d: "dislike", s: "save" }[event.key.toLowerCase()];
    if (side && (root.dataset.view === "list" || event.key.endsWith("t"))) {
      if (card[side]) {
        rove(card[side]);
        card[side].focus();
        card[side].scrollIntoView({ block: "nearest", inline: "nearest" });
      }
    } else if (act) toggle(card, act);
    else if (event.key.toLowerCase() === "w" || (event.key === "Enter" && event.target === card))
      send("explain_movie", { item: +card.dataset.item });
    else return;
    event.preventDefault();
  });
  root.addEventListener("focusin", (event) => {
    const card = event.target.closest?.(".card[data-item]");
    if (card) rove(card);
  });
  root.addEventListener(
    "error",
    (event) => {
      if (event.target.matches?.("img")) event.target.remove();
    },
    true,
  ); // the title beneath serves as a poster, too
  root.addEventListener("change", (event) => {
    const field = event.target,
      value = field.value.trim();
    const year = /^\d{4}$/.test(value) ? +value : null;
    ({
      "mr-user": () =>
        value !== "" &&
        send("choose_user", {
          user: (field.value = Math.min(Math.max(Math.trunc(+value), 0), +field.max)) && +field.value,
        }),
      "mr-k": () => send("set_options", { k: +value }),
      "mr-diversity": () => send("set_options", { diversity: +value }),
      "mr-calibrate": () => send("set_options", { calibrate: +value }),
      "mr-from": () => send("set_options", { from_year: year }),
      "mr-to": () => send("set_options", { to_year: year }),
      "mr-hide": () => send("set_options", { hide_shown: field.checked }),
      "mr-feedback": () => send("set_options", { use_feedback: field.checked }),
    })[field.id]?.();
    if (field.matches(".slider")) send("choose_user", { user: +value });
  });
  $(".slider").addEventListener("input", (event) => {
    $(".number").value = event.target.value;
  });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    const query = input.value.trim();
    if (query) timer = setTimeout(() => send("search_movies", { query }), 120);
    else open(false);
  });
  input.addEventListener("keydown", (event) => {
    const options = [...found.children];
    if (event.key === "Escape") open(false);
    else if (event.key === "Enter") pickMovie(found.hidden ? null : options[chosen]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      chosen = options.length
        ? (chosen + (event.key === "ArrowDown" ? 1 : -1) + options.length) % options.length
        : -1;
      options.forEach((option, at) => option.setAttribute("aria-selected", at === chosen));
      open(options.length > 0);
      options[chosen]?.scrollIntoView({ block: "nearest" });
    } else return;
    event.preventDefault();
  });
  input.addEventListener("blur", () => setTimeout(() => open(false), 150));
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    if (get("detail")) send("close_panel");
    opener?.focus?.({ preventScroll: true });
  });

  // All that has changed is drawn once, however many parts of the state arrive together
  const sameSaves = () => String(items(saves)) === String(items(get("feedback").saves));
  const DRAW = [
    [drawRows, ["rows", "notes", "rank_changes"]],
    [drawHero, ["rows", "viewer"]],
    [drawProfile, ["profile", "feedback", "viewer"]],
    [drawViewer, ["viewer", "about", "feedback"]],
    [drawFilters, ["options", "about"]],
    [drawDetail, ["detail"]],
    [drawFound, ["search_results"]],
    [drawStatus, ["status"]],
    [press, ["feedback", "rows"]],
  ];
  const changed = new Set();
  function note(name) {
    if (!changed.size)
      queueMicrotask(() => {
        if (changed.has("feedback") && !sameSaves()) changed.add("rows");
        const due = DRAW.filter(([, parts]) => parts.some((part) => changed.has(part)));
        changed.clear();
        for (const [draw] of due) draw();
      });
    changed.add(name);
  }
  const listeners = [...new Set(DRAW.flatMap(([, parts]) => parts))].map((name) => [
    `change:${name}`,
    () => note(name),
  ]);
  for (const [name, listen] of listeners) model.on(name, listen);
  model.on("msg:custom", received);

  root.dataset.theme = storage.get("theme") ?? "";
  view(storage.get("view") ?? "grid");
  const visit = storage.get("visit"),
    about = get("about"),
    known = visit && visit.dataset === about.dataset && visit.movies === about.movies;
  const other = known && (visit.user === undefined || visit.user !== get("viewer").user);
  for (const draw of [drawViewer, drawFilters, drawProfile, drawStatus]) draw();
  if (other) $(".rows").innerHTML = placeholders();
  else {
    drawRows();
    drawHero();
    press();
  }
  if (other)
    send(
      ...(visit.user === undefined
        ? ["become_new_user", visit.newUser]
        : ["choose_user", { user: visit.user }]),
    );
  else send("start");
  document.getElementById("loading")?.remove();
  return () => {
    for (const [name, listen] of listeners) model.off(name, listen);
    model.off("msg:custom", received);
  };
}

export default { render };
