// The page: shows the state that Python sends, and tells Python what is done. It computes nothing but places on the screen.

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
const hueOf = (genre) =>
  HUES[genre] ?? [...String(genre ?? "")].reduce((sum, sign) => (sum * 31 + sign.charCodeAt(0)) % 360, 210);
const hue = (film) => hueOf(film.genres[0]);
const facts = (film) => [film.year, film.genres.slice(0, 3).join(", ")].filter(Boolean).join(" · ");
const short = (film) => film.title.replace(/ \(.*\)$/, ""); // "Amelie (Le Fabuleux destin …)"
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
const KINDS = { like: "likes", dislike: "dislikes", save: "saves" };
const VERBS = {
  like: "Liked",
  dislike: "Disliked",
  save: "Saved",
  unlike: "No longer liked:",
  undislike: "No longer disliked:",
  unsave: "No longer saved:",
};
const kept = {
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
      /* a browser that keeps nothing */
    }
  },
};

const FRAME = `
<header class="head">
  <h1 class="brand">${icon("brand")}movierec</h1>
  <div class="who" role="group" aria-label="Who is watching">
    <label for="mr-user">User</label><input class="number" id="mr-user" type="number" min="0" value="0" inputmode="numeric">
    <input class="slider" type="range" min="0" max="0" value="0" aria-label="User, by slider">
    <button class="button" data-do="surprise">${icon("dice")}<span>Surprise me</span></button>
    <button class="button" data-do="newcomer" aria-pressed="false">I’m new here</button>
  </div>
  <div class="tools">
    <button class="button" data-do="tune" aria-expanded="false" aria-controls="mr-tune" aria-label="Tune the page">${icon("tune")}<span>Tune</span></button>
    <button class="round" data-do="view" aria-label="Show as a list"></button>
    <button class="round" data-do="theme" aria-label="Change between light and dark">${icon("theme")}</button>
  </div>
</header>
<div class="wait" aria-hidden="true"></div>
<div class="banner" role="alert" hidden><p></p><button class="button main" data-do="start">Try again</button></div>
<section class="tune" id="mr-tune" aria-label="Tune the page" hidden>
  <div class="field"><label for="mr-diversity">Variety of the top picks <output></output></label><input id="mr-diversity" type="range" min="0" max="1" step="0.1" value="0"></div>
  <div class="field"><label for="mr-k">Films in a row</label><select id="mr-k"><option>10</option><option selected>20</option><option>30</option><option>50</option></select></div>
  <div class="field"><label for="mr-from">Years</label><div class="line"><input id="mr-from" type="number" aria-label="from year" inputmode="numeric"> – <input id="mr-to" type="number" aria-label="to year" inputmode="numeric"></div></div>
  <div class="field"><label class="check"><input type="checkbox" id="mr-feedback" checked>My feedback counts</label><label class="check"><input type="checkbox" id="mr-hide">Hide what was shown</label><button class="button" data-do="others" hidden>Show others</button></div>
  <div class="field wide"><label id="mr-genres">Genres</label><div class="genres" role="group" aria-labelledby="mr-genres"></div></div>
</section>
<main>
  <section class="welcome" aria-labelledby="mr-welcome" hidden>
    <h2 id="mr-welcome">Which films do you love?</h2><p class="quiet">Name one, and the page begins to know you. Three or four make it good.</p>
    <div class="combo"><input role="combobox" aria-expanded="false" aria-controls="mr-found" aria-autocomplete="list" aria-label="A film's title" placeholder="The Matrix, Amélie, Toy Story …" autocomplete="off" spellcheck="false"><ul id="mr-found" role="listbox" aria-label="Films found" hidden></ul></div>
    <div class="chips picked"></div>
  </section>
  <div class="stage"><section class="hero" aria-label="First pick"></section><aside class="panel taste" aria-label="Your recent taste"></aside></div>
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
  trending: "watched a lot lately",
  gems: "few know them, they fit you",
  genre: "a genre of yours",
  because: "alike, and likely yours",
  saves: "your shelf",
};

const poster = (film, base, eager) =>
  `<div class="poster" style="--hue:${hue(film)}"><b aria-hidden="true">${safe(short(film))}</b><img alt="" ${eager ? "" : 'loading="lazy" '}decoding="async" src="${safe(base)}${film.item_idx}"></div>`;
const acts = (labels) =>
  ["like", "dislike", "save"]
    .map(
      (name) =>
        `<button class="${labels ? "button" : ""}" data-act="${name}" aria-pressed="false" tabindex="${labels ? 0 : -1}" title="${name[0].toUpperCase() + name.slice(1)}">${icon(name)}${labels ? `<span>${name[0].toUpperCase() + name.slice(1)}</span>` : ""}</button>`,
    )
    .join("") +
  `<button class="${labels ? "button" : ""}" data-do="explain" tabindex="${labels ? 0 : -1}" title="Why this?">${icon("why")}${labels ? "<span>Why this?</span>" : ""}</button>`;

function makeCard(film, base) {
  const card = document.createElement("li");
  card.className = "card";
  card.dataset.item = film.item_idx;
  card.tabIndex = -1;
  card.innerHTML = `<span class="badge rank" hidden></span><span class="badge move" hidden></span>${poster(film, base)}<h3 title="${safe(film.title)}">${safe(short(film))}</h3><p class="facts">${safe(facts(film))}</p><p class="match"><i></i><span></span></p><p class="reason"></p><div class="acts">${acts(false)}</div>`;
  return card;
}

// The same film keeps its element when rows change, so that it can be seen to move and nothing loads twice.
function fillCard(card, film, row, moved) {
  const [rank, move, reason, match] = [".rank", ".move", ".reason", ".match"].map((name) =>
    card.querySelector(name),
  );
  rank.hidden = row.kind !== "top";
  rank.textContent = film.rank;
  const places = row.kind === "top" ? moved[film.item_idx] : 0;
  move.hidden = places === 0 || places === undefined;
  move.className = `badge move ${places === null ? "new" : places > 0 ? "up" : "down"}`;
  move.textContent = places === null ? "new" : places > 0 ? `▲${places}` : `▼${-places}`;
  move.setAttribute(
    "aria-label",
    places === null ? "new in this list" : `${Math.abs(places)} places ${places > 0 ? "up" : "down"}`,
  );
  match.hidden = reason.hidden = film.match === undefined;
  if (film.match !== undefined) {
    match.firstChild.style.setProperty("--part", percent(Math.max(film.match, 0.02)));
    match.lastChild.textContent = percent(film.match);
    match.title = `Score ${film.score.toFixed(2)}: ${percent(film.match)} of the way from your last candidate to your first`;
    reason.textContent = reason.title = film.reason;
    reason.classList.toggle("boosted", film.reason.startsWith("Boosted by your likes"));
  }
  card.setAttribute("aria-label", [film.title, facts(film), film.reason].filter(Boolean).join(". "));
}

const bars = (list, hueFor, value) => {
  const most = Math.max(...list.map((one) => one.share), 1e-9);
  return `<div class="bars">${list.map((one) => `<span>${safe(one.name)}</span><span class="track"><i style="width:${percent(one.share / most)};--hue:${hueFor(one.name)}"></i></span><span class="value">${value(one)}</span>`).join("")}</div>`;
};
const columns = (list) => {
  const most = Math.max(...list.map((one) => one.share), 1e-9);
  return `<ol class="columns" aria-label="Decades">${list.map((one) => `<li title="${safe(one.name)}s: ${percent(one.share)}"><i style="height:${percent((0.72 * one.share) / most)}"></i><span aria-label="${safe(one.name)}s: ${percent(one.share)}">${safe(one.name).slice(2)}s</span></li>`).join("")}</ol>`;
};

function whySheet(why, base) {
  const most = Math.max(
    ...why.contributions.map((share) => Math.abs(share.contribution)),
    Math.abs(why.others),
    1e-9,
  );
  const bar = (name, meaning, adds, value) =>
    `<li><span>${safe(name)}<small>${safe(meaning)}${value === null || value === undefined ? "" : ` = ${amount(value)}`}</small></span><span class="axis"><i class="${adds < 0 ? "less" : ""}" style="--part:${percent(Math.abs(adds) / most / 2)}"></i></span><span class="value">${adds < 0 ? "−" : "+"}${Math.abs(adds).toFixed(2)}</span></li>`;
  return `<header>${poster(why.movie, base, true)}<div><p class="quiet">Why this?</p><h2>${safe(why.movie.title)}</h2><p class="quiet">${safe(facts(why.movie))}</p><p style="margin-top:8px">${safe(why.movie.reason)}.</p><p class="quiet">Place ${why.movie.rank} of ${why.candidates} candidates, score ${why.movie.score.toFixed(2)}</p></div><button class="round" data-do="close" aria-label="Close">${icon("close")}</button></header>
  ${why.sources.length ? `<section><h3>Who proposed it</h3><div class="bars">${why.sources.map((one) => `<span>${safe(one.source)}${one.source === why.top_source ? " ◂" : ""}</span><span class="track"><i style="width:${percent(20 / (19 + one.rank))}"></i></span><span class="value">rank ${one.rank}</span>`).join("")}</div><p class="quiet" style="margin-top:8px">${why.sources.some((one) => one.source === why.top_source) ? "◂ did most for its place." : `${safe(why.top_source)} did most for its place, without having proposed it.`}</p></section>` : ""}
  ${why.contributions.length ? `<section><h3>What moved its score</h3><ul class="shares">${why.contributions.map((share) => bar(share.feature, share.meaning, share.contribution, share.value)).join("")}${bar("everything else", "all other features together", why.others)}</ul></section>` : `<p class="quiet">This system can’t tell what each feature adds.</p>`}`;
}

const closing = (title, sub) =>
  `<header><div><h2>${title}</h2><p class="quiet">${sub}</p></div><button class="round" data-do="close" aria-label="Close">${icon("close")}</button></header>`;

function historySheet(detail) {
  const most = Math.max(...detail.genres.map((one) => one.films), 1),
    total = detail.films.length;
  return `${closing("History", `${total === 100 ? "The last 100" : total} films, the latest first`)}
  <section><h3>Genres: films, and mean stars</h3>${bars(
    detail.genres.slice(0, 12).map((one) => ({ ...one, share: one.films / most })),
    hueOf,
    (one) => `${one.films} · ${one.stars === null ? "–" : `★ ${one.stars.toFixed(1)}`}`,
  )}</section>
  <section><h3>Films</h3><table><thead><tr><th>Film</th><th>Stars</th><th class="n">When</th></tr></thead><tbody>${detail.films.map((film) => `<tr><td>${safe(film.title)} <small class="quiet">${film.year ?? ""}</small></td><td>${film.rating === null ? "–" : stars(film.rating)}</td><td class="n">${day(film.timestamp)}</td></tr>`).join("")}</tbody></table></section>`;
}

function debugSheet(debug) {
  const named = (list, tell) =>
    `<ol>${list.map((one) => `<li>${safe(one.title)} <small>${tell(one)}</small></li>`).join("")}</ol>`;
  return `${closing("How this list came about", `${safe(debug.system)}, ${safe(debug.user_context ?? "no pool")}, ${debug.events} events, ${debug.pool.length} candidates`)}
  <section><h3>Steps</h3>${bars(
    Object.entries(debug.milliseconds).map(([name, ms]) => ({ name, share: ms })),
    () => 200,
    (one) => `${one.share.toFixed(1)} ms`,
  )}</section>
  <section><h3>The list</h3><table><thead><tr><th></th><th>Film</th><th>Driver</th><th class="n">Score</th></tr></thead><tbody>${debug.items.map((one) => `<tr><td class="n">${one.rank}</td><td>${safe(one.title)}</td><td>${safe(one.top_source)}</td><td class="n">${one.score === null ? "–" : one.score.toFixed(2)}</td></tr>`).join("")}</tbody></table></section>
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
  const base = document.querySelector('meta[name="movierec-posters"]')?.content ?? get("posters");
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
  const waiting = new Map(); // number → when it was told

  // Telling Python, and waiting for it
  function tell(what, how = {}) {
    waiting.set(++number, performance.now());
    root.dataset.told = number;
    model.send({ do: what, how, number });
    busy ||= setTimeout(() => root.classList.add("busy"), 200);
    lost ||= setTimeout(() => banner("The program behind this page doesn’t answer.", "reload"), 20_000);
  }
  function heard({ done }) {
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
      moved = get("moved");
    saves = get("saying").saves ?? [];
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
      return drawRow(old.get(kind), kind, row, moved);
    });
    place.replaceChildren(...sections);
    if (!rows.length)
      place.innerHTML = get("notes").length
        ? `<p class="empty">${safe(get("notes").join(" "))}</p>`
        : ghosts();
    if (active && place.contains(active)) active.focus({ preventScroll: true });
    glide(before, top - place.getBoundingClientRect().top);
  }
  function drawRow(section, key, row, moved) {
    if (!section) {
      section = document.createElement("section");
      section.className = "row";
      section.dataset.key = key;
      section.dataset.kind = row.kind;
      section.innerHTML = `<header><h2 id="mr-${safe(key)}"></h2><small>${NOTES[row.kind]}</small><span class="scroll"><button data-do="scroll" data-by="-1" tabindex="-1" aria-label="Scroll back">${icon("left")}</button><button data-do="scroll" data-by="1" tabindex="-1" aria-label="Scroll on">${icon("right")}</button></span></header><ul class="cards" aria-labelledby="mr-${safe(key)}"></ul>`;
    }
    section.querySelector("h2").innerHTML = titleOf(
      row,
      new Set((get("saying").likes ?? []).map((film) => film.item_idx)),
    );
    const list = section.querySelector(".cards"),
      have = new Map([...list.children].map((card) => [+card.dataset.item, card]));
    const cards = row.items.map((film) => {
      const card = have.get(film.item_idx) ?? makeCard(film, base);
      fillCard(card, film, row, moved);
      return card;
    });
    const scrolled = list.scrollLeft;
    if (cards.length !== list.children.length || cards.some((card, at) => list.children[at] !== card))
      list.replaceChildren(...cards);
    list.scrollLeft = scrolled;
    if (!cards.some((card) => card.tabIndex === 0) && cards.length) rove(cards[0]);
    return section;
  }
  const ghosts = () =>
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
    const said = get("saying");
    for (const [act, kind] of Object.entries(KINDS)) {
      const items = new Set((said[kind] ?? []).map((film) => film.item_idx));
      for (const button of root.querySelectorAll(`[data-act="${act}"]`))
        button.setAttribute("aria-pressed", items.has(+button.closest("[data-item]").dataset.item));
    }
  }
  function drawHero() {
    const film = get("rows")[0]?.items[0],
      hero = $(".hero");
    hero.hidden = !film;
    if (!film) return;
    hero.dataset.item = film.item_idx;
    hero.style.setProperty("--hue", hue(film));
    hero.innerHTML = `${poster(film, base, true)}<div><p class="kicker">No. 1 for ${get("person").user === null ? "you" : `user ${get("person").user}`}</p><h2 title="${safe(film.title)}">${safe(short(film))}</h2><p class="facts">${safe(facts(film))}</p><p class="reason">${safe(film.reason)}</p><div class="acts">${acts(true)}</div></div>`;
    hero.querySelector("[data-act=like]").classList.add("main");
  }

  // The panel, the picks and the rest
  function drawTaste() {
    const taste = get("taste"),
      said = get("saying"),
      person = get("person");
    const last = [
      ...(said.likes ?? [])
        .slice(-4)
        .reverse()
        .map((film) => ["like", film]),
      ...(said.dislikes ?? [])
        .slice(-3)
        .reverse()
        .map((film) => ["dislike", film]),
    ];
    const sub =
      person.user === null
        ? `${person.picked.length} named`
        : `${person.films === 100 ? "100+" : person.films} films${person.stars ? ` · ★ ${person.stars.toFixed(1)}` : ""}`;
    $(".taste").innerHTML = `<h2>Your recent taste <small>${sub}</small></h2>
    ${taste.genres?.length ? bars(taste.genres, hueOf, (one) => percent(one.share)) : `<p class="quiet">Nothing is known yet. Name or like a film, and this fills.</p>`}
    ${taste.decades?.length > 1 ? columns(taste.decades) : ""}
    ${last.length ? `<div><p class="quiet" style="margin-bottom:7px">What you said</p><div class="chips">${last.map(([act, film]) => `<span class="chip ${act}" data-item="${film.item_idx}">${icon(act)}<span>${safe(film.title)}</span><button data-undo="un${act}" aria-label="Take back: ${act} ${safe(film.title)}">${icon("close")}</button></span>`).join("")}</div></div>` : person.user === null ? "" : `<p class="quiet">Like or dislike a film: the page heeds it at once.</p>`}
    <div class="chips">${person.user === null ? "" : `<button class="button" data-do="history">History</button><button class="button" data-do="debug">How this list came about</button>`}</div>`;
  }
  function drawPerson() {
    const person = get("person"),
      about = get("about"),
      most = Math.max((about.users ?? 1) - 1, 0);
    for (const field of [$(".number"), $(".slider")]) {
      field.max = most;
      if (person.user !== null && document.activeElement !== field) field.value = person.user;
    }
    $('.who [data-do="newcomer"]').setAttribute("aria-pressed", person.user === null);
    $(".welcome").hidden = person.user !== null;
    $(".picked").innerHTML = (person.picked ?? [])
      .map(
        (film) =>
          `<span class="chip" data-item="${film.item_idx}"><span>${safe(film.title)}</span><button data-do="unpick" aria-label="Remove ${safe(film.title)}">${icon("close")}</button></span>`,
      )
      .join("");
    $(".system").textContent = about.dataset
      ? `${about.movies.toLocaleString()} films, ${about.users.toLocaleString()} users of ${about.dataset}, ranked by ${about.system}.`
      : "";
    $(".tmdb").hidden = !about.attribution;
    if (about.attribution)
      $(".tmdb").innerHTML =
        `Posters: <a href="${safe(about.attribution.link)}" rel="noreferrer">TMDB</a>. ${safe(about.attribution.text)}`;
    $('[data-do="others"]').hidden = !person.hide_shown;
    $("#mr-hide").checked = person.hide_shown;
    $("#mr-feedback").checked = person.use_feedback;
    if (about.dataset)
      kept.set(
        "visit",
        person.user === null
          ? {
              data: about.dataset,
              films: about.movies,
              newcomer: {
                picked: items(person.picked),
                ...Object.fromEntries(Object.values(KINDS).map((kind) => [kind, items(get("saying")[kind])])),
              },
            }
          : { data: about.dataset, films: about.movies, user: person.user },
      );
  }
  function drawTuning() {
    const wishes = get("wishes"),
      about = get("about");
    $("#mr-diversity").value = wishes.diversity;
    $("#mr-tune output").textContent = wishes.diversity
      ? `${Math.round(wishes.diversity * 10)} of 10`
      : "off";
    $("#mr-k").value = wishes.k;
    [
      ["#mr-from", wishes.from_year, about.years?.[0]],
      ["#mr-to", wishes.to_year, about.years?.[1]],
    ].forEach(([name, year, hint]) => {
      if (document.activeElement !== $(name)) $(name).value = year ?? "";
      $(name).placeholder = hint ?? "";
    });
    const focus = document.activeElement?.dataset?.genre;
    $(".genres").innerHTML = (about.genres ?? [])
      .map(
        (name) =>
          `<button data-genre="${safe(name)}" aria-pressed="${wishes.genres.includes(name)}">${safe(name)}</button>`,
      )
      .join("");
    if (focus) root.querySelector(`[data-genre="${CSS.escape(focus)}"]`)?.focus();
  }
  function drawFound() {
    const list = get("found")[input.value.trim()] ?? [];
    chosen = list.length ? 0 : -1;
    found.innerHTML = list
      .map(
        (film, at) =>
          `<li role="option" id="mr-found-${at}" data-item="${film.item_idx}" aria-selected="${at === chosen}">${poster(film, base)}<span>${safe(film.title)}<small>${safe(facts(film))}</small></span></li>`,
      )
      .join("");
    open(list.length > 0);
  }
  function open(yes) {
    found.hidden = !yes;
    input.setAttribute("aria-expanded", yes);
    input.setAttribute("aria-activedescendant", yes && chosen >= 0 ? `mr-found-${chosen}` : "");
  }
  function pick(option) {
    if (!option) return;
    tell("pick", { item: +option.dataset.item });
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
    const { away, problem } = get("status");
    banner(away ? `${away[0].toUpperCase()}${away.slice(1)}. What you see is from before.` : null);
    if (problem) toast(`${problem[0].toUpperCase()}${problem.slice(1)}.`);
  }

  // What is done
  function say(item, act) {
    const title = titleAt(item);
    tell("say", { item, action: act });
    toast(`${VERBS[act]} ${shorten(title, 44)}`, () =>
      tell("say", { item, action: act.startsWith("un") ? act.slice(2) : `un${act}` }),
    );
  }
  const items = (films) => (films ?? []).map((film) => film.item_idx);
  const titleAt = (item) =>
    root.querySelector(`[data-item="${item}"] :is(h3, h2, .chip > span)`)?.textContent ?? "the film";
  function toggle(element, act) {
    const item = +element.closest("[data-item]").dataset.item;
    const on = (get("saying")[KINDS[act]] ?? []).some((film) => film.item_idx === item);
    say(item, on ? `un${act}` : act);
  }
  const DO = {
    surprise: () => tell("surprise"),
    newcomer: () => tell(...(get("person").user === null ? ["choose", { user: 0 }] : ["newcomer"])),
    start: () => tell("start"),
    reload: () => location.reload(),
    others: () => tell("wish", { hide_shown: true }),
    history: () => tell("look", { kind: "history" }),
    debug: () => tell("look", { kind: "debug" }),
    close: () => dialog.close(),
    unpick: (button) => tell("unpick", { item: +button.closest("[data-item]").dataset.item }),
    explain: (button) => tell("explain", { item: +button.closest("[data-item]").dataset.item }),
    scroll: (button) => {
      const list = button.closest(".row").querySelector(".cards");
      list.scrollBy({ left: button.dataset.by * list.clientWidth * 0.85, behavior: "smooth" });
    },
    tune: (button) => {
      const tune = $(".tune");
      tune.hidden = !tune.hidden;
      button.setAttribute("aria-expanded", !tune.hidden);
    },
    view: () => view(root.dataset.view === "list" ? "grid" : "list"),
    theme: () => {
      const dark = getComputedStyle(root).colorScheme === "dark";
      kept.set("theme", (root.dataset.theme = dark ? "light" : "dark"));
    },
  };
  function view(name) {
    kept.set("view", (root.dataset.view = name));
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
    else if (at.dataset.undo) say(+at.closest("[data-item]").dataset.item, at.dataset.undo);
    else if (at.dataset.genre) {
      const had = get("wishes").genres,
        name = at.dataset.genre;
      tell("wish", { genres: had.includes(name) ? had.filter((one) => one !== name) : [...had, name] });
    } else if (at.dataset.do) DO[at.dataset.do](at);
    else if (at.matches("[role=option]")) pick(at);
    else if (!at.closest('[data-kind="saves"]'))
      tell("explain", { item: +at.closest("[data-item]").dataset.item });
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
      tell("explain", { item: +card.dataset.item });
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
  ); // what is beneath is a poster, too
  root.addEventListener("change", (event) => {
    const field = event.target,
      value = field.value.trim();
    const year = /^\d{4}$/.test(value) ? +value : null;
    ({
      "mr-user": () =>
        value !== "" &&
        tell("choose", {
          user: (field.value = Math.min(Math.max(Math.trunc(+value), 0), +field.max)) && +field.value,
        }),
      "mr-k": () => tell("wish", { k: +value }),
      "mr-diversity": () => tell("wish", { diversity: +value }),
      "mr-from": () => tell("wish", { from_year: year }),
      "mr-to": () => tell("wish", { to_year: year }),
      "mr-hide": () => tell("wish", { hide_shown: field.checked }),
      "mr-feedback": () => tell("wish", { use_feedback: field.checked }),
    })[field.id]?.();
    if (field.matches(".slider")) tell("choose", { user: +value });
  });
  $(".slider").addEventListener("input", (event) => {
    $(".number").value = event.target.value;
  });
  input.addEventListener("input", () => {
    clearTimeout(timer);
    const query = input.value.trim();
    if (query) timer = setTimeout(() => tell("search", { query }), 120);
    else open(false);
  });
  input.addEventListener("keydown", (event) => {
    const options = [...found.children];
    if (event.key === "Escape") open(false);
    else if (event.key === "Enter") pick(found.hidden ? null : options[chosen]);
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
    if (get("detail")) tell("close");
    opener?.focus?.({ preventScroll: true });
  });

  // What has changed is drawn once, however many parts of the state came together
  const sameSaves = () => String(items(saves)) === String(items(get("saying").saves));
  const DRAW = [
    [drawRows, ["rows", "notes", "moved"]],
    [drawHero, ["rows", "person"]],
    [drawTaste, ["taste", "saying", "person"]],
    [drawPerson, ["person", "about", "saying"]],
    [drawTuning, ["wishes", "about"]],
    [drawDetail, ["detail"]],
    [drawFound, ["found"]],
    [drawStatus, ["status"]],
    [press, ["saying", "rows"]],
  ];
  const changed = new Set();
  function note(name) {
    if (!changed.size)
      queueMicrotask(() => {
        if (changed.has("saying") && !sameSaves()) changed.add("rows");
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
  model.on("msg:custom", heard);

  root.dataset.theme = kept.get("theme") ?? "";
  view(kept.get("view") ?? "grid");
  const visit = kept.get("visit"),
    about = get("about"),
    known = visit && visit.data === about.dataset && visit.films === about.movies;
  const other = known && (visit.user === undefined || visit.user !== get("person").user);
  for (const draw of [drawPerson, drawTuning, drawTaste, drawStatus]) draw();
  if (other) $(".rows").innerHTML = ghosts();
  else {
    drawRows();
    drawHero();
    press();
  }
  if (other)
    tell(...(visit.user === undefined ? ["newcomer", visit.newcomer] : ["choose", { user: visit.user }]));
  else tell("start");
  document.getElementById("loading")?.remove();
  return () => {
    for (const [name, listen] of listeners) model.off(name, listen);
    model.off("msg:custom", heard);
  };
}

export default { render };
