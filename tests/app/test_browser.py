"""The app in a real browser: what a visitor does and sees, and what is on the disk afterwards."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from movierec.artifacts import paths

HINT = "playwright isn't installed: pip install 'movierec[dev]'"
playwright = pytest.importorskip("playwright.sync_api", reason=HINT)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SCREENSHOTS = Path(__file__).resolve().parents[1] / "screenshots"  # git-ignored; also the times that were measured
pytestmark = [
    pytest.mark.slow,
    pytest.mark.extra,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]
COMMAND = Path(sys.executable).with_name("movierec")
CARD = '[data-kind="top"] .card:nth-child({})'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it didn't happen within {seconds:g} seconds"
        time.sleep(0.02)


def is_ready(api):
    try:
        return httpx.get(f"{api}/health").status_code == 200
    except httpx.HTTPError:
        return False


def note(**times):
    """Keep what was measured beside the screenshots."""
    file = SCREENSHOTS / "times.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | times, indent=1) + "\n")


class AppProcess:
    """`movierec app` on a copy of a run, and the API behind it."""

    def __init__(self, settings):
        self.settings, self.port = settings, free_port()
        self.api, self.url, self.process = f"http://127.0.0.1:{self.port}", None, None
        self.options = {"--dataset": settings.dataset, "--data-dir": settings.data_dir,
                        "--reports-dir": settings.reports_dir}

    def command(self, name, *options):
        common = [value for pair in self.options.items() for value in pair]
        return [COMMAND, name, *map(str, (*common, *options))]

    def run(self, *options):
        """Run `movierec app` to its end; its exit status and the last line of what it prints."""
        done = subprocess.run(self.command("app", *options), capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr.splitlines()[-1]

    @contextmanager
    def running(self, output):
        with output.open("w") as file:
            options = ("--set", f"service.port={self.port}", "--set", "app.timeout=60")  # on a loaded machine, too
            command = self.command("app", "--port", 0, *options)
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: self.process.poll() is not None or "The app: http" in output.read_text(), 120)
            assert self.process.poll() is None, output.read_text()
            self.url = re.search(r"The app: (\S+)", output.read_text())[1]
            yield self
        finally:
            if self.process.poll() is None:
                self.process.terminate()
            self.process.wait(60)

    def api_process(self):
        """The API that the app has started."""
        (process,) = [child for child in psutil.Process(self.process.pid).children() if "api" in child.cmdline()]
        return process

    def log(self):
        """All recorded feedback events."""
        file = paths(self.settings).feedback
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def get(self, path, **params):
        return httpx.get(f"{self.api}{path}", params=params, timeout=60).json()

    def top_picks(self, user):
        return [item["item_idx"] for item in self.get(f"/recommend/user/{user}", k=20)["items"]]


class Visit:
    """A browser's page, and what a visitor does with it."""

    def __init__(self, page):
        self.page, self.errors, self.requests = page, [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, url):
        self.page.goto(url, wait_until="commit")
        self.wait_for_rows()
        return self

    def wait_for_rows(self):
        self.page.wait_for_selector('.mr [data-kind="top"] .card', timeout=60_000)
        self.wait_for_answers()

    def wait_for_answers(self):
        """Wait until every message has been answered."""
        is_answered = "(({ answered, sent }) => +answered === +sent)(document.querySelector('.mr').dataset)"
        self.page.wait_for_function(is_answered, timeout=60_000)

    def do(self, action):
        """Do something and wait for the answer; returns how many milliseconds it took."""
        sent = self.page.evaluate("+document.querySelector('.mr').dataset.sent")
        action()
        self.page.wait_for_function(f"+document.querySelector('.mr').dataset.sent > {sent}", timeout=60_000)
        self.wait_for_answers()
        return int(self.page.evaluate("document.querySelector('.mr').dataset.took"))

    def click(self, selector):
        return self.do(lambda: self.page.click(selector))

    def press(self, key):
        return self.do(lambda: self.page.keyboard.press(key))

    def enter(self, field, value):
        return self.do(lambda: (self.page.fill(field, str(value)), self.page.press(field, "Enter")))

    def choose_user(self, user):
        return self.enter("#mr-user", user)

    def row(self, kind="top"):
        """The item_idx of a row's cards."""
        cards = f'[data-kind="{kind}"] .card'
        return self.page.eval_on_selector_all(cards, "cards => cards.map((card) => +card.dataset.item)")

    def focused_item(self):
        return self.page.evaluate("+document.activeElement.dataset.item")

    def scheme(self):
        return "light" if self.page.evaluate("matchMedia('(prefers-color-scheme: light)').matches") else "dark"

    def screenshot(self, name, **more):
        self.page.evaluate("document.querySelectorAll('.toast').forEach((toast) => toast.remove())")
        self.page.wait_for_timeout(700)  # until moving cards have arrived
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", **more)


@pytest.fixture(scope="module")
def settings(small_run, tmp_path_factory):
    """The run in a folder of its own, which may be written to."""
    folder = tmp_path_factory.mktemp("app")
    for name in ("data", "reports"):
        shutil.copytree(getattr(small_run[0], f"{name}_dir"), folder / name)
    SCREENSHOTS.mkdir(exist_ok=True)
    return small_run[0].model_copy(update={"data_dir": folder / "data", "reports_dir": folder / "reports"})


@pytest.fixture(scope="module")
def app(settings, tmp_path_factory):
    with AppProcess(settings).running(tmp_path_factory.mktemp("app-output") / "output.txt") as app:
        yield app


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as library:
        chromium = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, request):
    options = {"viewport": {"width": 1400, "height": 1000}, "color_scheme": "dark"} | getattr(request, "param", {})
    context = browser.new_context(**options)
    visit = Visit(context.new_page())
    yield visit
    context.close()
    assert visit.errors == []


def test_the_first_page(app, visit):
    begun = time.monotonic()
    visit.page.goto(app.url, wait_until="commit")
    visit.page.wait_for_selector('.mr [data-kind="top"] .card', timeout=60_000)
    note(first_page_seconds=round(time.monotonic() - begun, 2))
    visit.wait_for_answers()
    kinds = visit.page.eval_on_selector_all(".row", "rows => rows.map((row) => row.dataset.kind)")
    assert visit.row() == app.top_picks(0) and {"because", "trending", "genre"} <= set(kinds)
    assert [url for url in visit.requests if not url.startswith((app.url, "data:", "blob:"))] == []  # all from here
    assert "load_settings" not in visit.page.inner_text("body")  # no code
    assert visit.page.query_selector(".jp-InputArea") is None
    visit.screenshot("desktop-dark")


def test_choosing_a_user(app, visit):
    visit.open(app.url)
    note(user_milliseconds=visit.choose_user(41))
    assert visit.row() == app.top_picks(41)
    visit.do(lambda: (visit.page.focus(".slider"), visit.page.press(".slider", "ArrowRight")))
    assert visit.row() == app.top_picks(42) and visit.page.input_value("#mr-user") == "42"
    visit.choose_user(99_999)
    assert visit.page.input_value("#mr-user") == "609" and visit.row() == app.top_picks(609)
    visit.page.reload()
    visit.wait_for_rows()
    assert visit.page.input_value("#mr-user") == "609" and visit.row() == app.top_picks(609)  # the browser remembers
    visit.click('[data-do="surprise"]')
    assert visit.row() == app.top_picks(int(visit.page.input_value("#mr-user")))


def test_a_like_counts_is_recorded_and_can_be_undone(app, visit):
    visit.open(app.url).choose_user(41)
    before, events = visit.row(), len(app.log())
    item = before[1]
    note(like_milliseconds=visit.click(f"{CARD.format(2)} [data-act=like]"))
    after, (event,) = visit.row(), app.log()[events:]
    assert (event["user_idx"], event["item_idx"], event["action"]) == (41, item, "like")
    assert item not in after and after != before and after == app.top_picks(41)
    assert visit.page.query_selector('[data-kind="top"] .badge.move:not([hidden])')
    assert visit.page.query_selector(f'.chip.like[data-item="{item}"]')
    assert "Boosted by your likes" in visit.page.inner_text(".rows")
    visit.screenshot("desktop-liked")
    visit.click(f"{CARD.format(1)} [data-act=dislike]")
    assert after[0] not in visit.row()
    visit.click(".toast button")
    assert visit.row() == after
    note(undo_milliseconds=visit.click(f'.chip.like[data-item="{item}"] button'))
    assert visit.row() == before
    assert [event["action"] for event in app.log()[events:]] == ["like", "dislike", "undislike", "unlike"]


def test_by_keyboard(app, visit):
    visit.open(app.url).choose_user(7)
    _, second, third = visit.row()[:3]
    visit.page.focus(CARD.format(1))
    visit.page.keyboard.press("ArrowRight")
    visit.page.keyboard.press("ArrowRight")
    assert visit.focused_item() == third
    visit.press("s")
    assert visit.row("saves") == [third] and app.log()[-1]["action"] == "save"
    assert visit.focused_item() == third  # the focus stays
    visit.page.keyboard.press("ArrowLeft")
    visit.press("l")
    assert app.log()[-1]["item_idx"] == second and second not in visit.row()
    visit.page.focus(CARD.format(1))
    visit.press("w")
    assert visit.page.query_selector("dialog[open]")
    visit.press("Escape")
    assert visit.page.query_selector("dialog[open]") is None and visit.focused_item() == visit.row()[0]
    stops = visit.page.eval_on_selector_all('[data-kind="top"] [tabindex="0"]', "all => all.length")
    assert stops == 5  # a row is one card and its four buttons, however many movies it has


def test_the_side_panel(app, visit):
    visit.open(app.url).choose_user(41)
    note(why_milliseconds=visit.click(f"{CARD.format(1)} [data-do=explain]"))
    request = {"user_idx": 41, "item_idx": visit.row()[0]}
    why = httpx.post(f"{app.api}/why", json=request, timeout=60).json()
    expected = [why["movie"]["reason"], *(source["source"] for source in why["sources"]),
                *(contribution["feature"] for contribution in why["contributions"])]
    expected += [one["reason"] for one in why["reasons"]] + [movie["title"] for movie in why["own_movies"]]
    visit.page.click("dialog details summary")
    text = visit.page.inner_text("dialog")
    assert [part for part in expected if part not in text] == []
    n_bars = len(visit.page.query_selector_all("dialog details .axis i"))  # one more than features: all others
    assert n_bars == (len(why["contributions"]) + 1 if why["contributions"] else 0)  # only V3 has contributions
    assert len(visit.page.query_selector_all("dialog .axis i")) == n_bars + len(why["reasons"]) == n_bars + 5
    visit.screenshot("desktop-why")
    visit.click("dialog [data-do=close]")
    visit.click('[data-do="history"]')
    history = app.get("/users/41/history")
    assert history[0]["title"] in visit.page.inner_text("dialog tbody tr:first-child")
    assert len(visit.page.query_selector_all("dialog tbody tr")) == len(history)
    visit.screenshot("desktop-history")
    visit.click("dialog [data-do=close]")
    visit.click('[data-do="debug"]')
    sources = visit.page.eval_on_selector_all("dialog summary", "all => all.map((one) => one.textContent)")
    assert {"popularity", "als", "sequential"} <= {source.split(":")[0] for source in sources}


def test_a_new_user(app, visit):
    visit.open(app.url)
    visit.click('[data-do="new-user"]')
    popular = visit.row()
    visit.do(lambda: visit.page.type(".combo input", "the matirx"))
    visit.page.wait_for_selector("[role=option]")
    assert "The Matrix" in visit.page.inner_text("[role=option]:first-child")
    visit.page.keyboard.press("ArrowDown")
    visit.page.keyboard.press("ArrowUp")
    note(pick_milliseconds=visit.press("Enter"))
    assert "The Matrix" in visit.page.inner_text(".picked") and visit.row() != popular
    assert "The Matrix" in visit.page.inner_text('[data-kind="because"] h2')
    events, liked = len(app.log()), visit.row()[0]
    visit.click(f"{CARD.format(1)} [data-act=like]")
    assert liked not in visit.row() and len(app.log()) == events  # a new user's feedback isn't recorded
    visit.screenshot("desktop-new-user")
    movies = visit.row()
    visit.page.reload()
    visit.wait_for_rows()
    assert "The Matrix" in visit.page.inner_text(".picked") and visit.row() == movies
    visit.click(".picked button")
    assert visit.page.inner_text(".picked") == "" and visit.row() != movies


def test_filters_and_options(app, visit):
    visit.open(app.url).choose_user(5)
    plain = visit.row()
    visit.page.click('[data-do="filters"]')
    note(filter_milliseconds=visit.click('[data-genre="Comedy"]'))
    visit.enter("#mr-from", 1980)
    movies = [app.get(f"/movies/{item}") for item in visit.row()[:8]]
    assert movies and all("Comedy" in movie["genres"] and movie["year"] >= 1980 for movie in movies)
    visit.screenshot("desktop-filters")
    visit.click('[data-genre="Comedy"]')
    visit.enter("#mr-from", "")
    assert visit.row() == plain
    visit.do(lambda: visit.page.check("#mr-hide"))
    others = visit.row()
    assert not set(plain) & set(others)
    visit.click('[data-do="others"]')
    assert not (set(plain) | set(others)) & set(visit.row())
    visit.do(lambda: visit.page.uncheck("#mr-hide"))
    visit.do(lambda: (visit.page.focus("#mr-diversity"), visit.page.press("#mr-diversity", "End")))
    assert visit.row()[0] == plain[0] and visit.row() != plain
    visit.do(lambda: visit.page.press("#mr-diversity", "Home"))
    visit.click(f"{CARD.format(1)} [data-act=like]")
    assert visit.row() != plain
    visit.do(lambda: visit.page.uncheck("#mr-feedback"))
    assert visit.row() == plain
    visit.page.click('[data-do="view"]')
    assert visit.page.get_attribute(".mr", "data-view") == "list"
    visit.screenshot("desktop-list")


def test_the_api_goes_down_and_comes_back(settings, visit, tmp_path):
    with AppProcess(settings).running(tmp_path / "output.txt") as app:
        visit.open(app.url).choose_user(12)
        saved = visit.row()[2]
        visit.click(f"{CARD.format(3)} [data-act=save]")
        movies = visit.row()
        app.api_process().terminate()
        wait_for(lambda: not is_ready(app.api))
        visit.click(f"{CARD.format(1)} [data-act=like]")
        assert "othing answers at" in visit.page.inner_text(".banner") and visit.row() == movies
        assert visit.page.query_selector('[data-act="like"][aria-pressed="true"]') is None
        visit.screenshot("desktop-unavailable")
        api = subprocess.Popen(app.command("api", "--port", app.port), stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: is_ready(app.api))
            visit.click(".banner button")
            assert not visit.page.is_visible(".banner")
            assert visit.row() == movies and visit.row("saves") == [saved]  # earlier feedback is still there
            visit.click(f"{CARD.format(1)} [data-act=like]")
            assert (app.log()[-1]["user_idx"], app.log()[-1]["action"]) == (12, "like")
        finally:
            api.terminate()
            api.wait(30)


def test_the_command_stops_what_it_has_started(settings, tmp_path):
    with AppProcess(settings).running(tmp_path / "output.txt") as app:
        assert is_ready(app.api)
        parent = psutil.Process(app.process.pid)
        wait_for(lambda: len(parent.children(recursive=True)) >= 2)  # the API and a preheated kernel
        family = parent.children(recursive=True)
        status, error = app.run("--port", app.url.rpartition(":")[2], "--api-url", app.api)  # on the same port
        assert status == 1 and error.startswith("Error: 127.0.0.1 port ") and is_ready(app.api)
    psutil.wait_procs(family, 20)
    assert not [process for process in family if process.is_running()] and not is_ready(app.api)
    assert app.process.returncode == 0


def test_a_killed_command_leaves_no_process_behind(settings, tmp_path):
    with AppProcess(settings).running(tmp_path / "output.txt") as app:
        family = psutil.Process(app.process.pid).children(recursive=True)
        assert app.api_process() in family
        app.process.kill()
        _, alive = psutil.wait_procs(family, 60)
        assert not alive and not is_ready(app.api)


def test_the_command_says_what_is_wrong(settings):
    app = AppProcess(settings)
    assert app.run("--port", 0, "--api-url", app.api) == (
        1, f"Error: nothing answers at {app.api}, which app.api_url names")
    assert "service.port a number" in app.run("--port", 0, "--set", "service.port=0")[1]
    app.options["--dataset"] = "no-such-dataset"
    assert app.run("--port", 0, "--set", f"service.port={app.port}") == (
        1, "Error: the API couldn't be started; its own message is above")


def in_both_themes(options):
    """Run a test with a light and with a dark browser."""
    browsers = [options | {"color_scheme": scheme} for scheme in ("light", "dark")]
    return pytest.mark.parametrize("visit", browsers, indirect=True, ids=["light", "dark"])


PHONE = {"viewport": {"width": 360, "height": 780}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
PAGE_WIDTH = "document.documentElement.scrollWidth"
SMALL_BUTTONS = """all => all.filter((one) => {
  const { width, height } = one.getBoundingClientRect();
  return one.offsetParent && Math.min(width, height) < 24;
}).length"""


@in_both_themes(PHONE)
def test_a_phone(app, visit):
    visit.open(app.url).choose_user(41)
    assert visit.page.evaluate(PAGE_WIDTH) <= 360  # no horizontal scrolling
    assert visit.page.eval_on_selector_all(".mr button", SMALL_BUTTONS) == 0  # WCAG 2.2, target size
    save = f"{CARD.format(2)} [data-act=save]"
    visit.page.locator(save).scroll_into_view_if_needed()
    visit.do(lambda: visit.page.tap(save))
    assert len(visit.row("saves")) == 1
    visit.do(lambda: visit.page.tap('[data-kind="saves"] [data-act=save]'))
    visit.page.evaluate("scrollTo(0, 0)")
    visit.screenshot(f"phone-{visit.scheme()}")
    visit.page.click('[data-do="filters"]')
    visit.page.click('[data-do="view"]')
    assert visit.page.evaluate(PAGE_WIDTH) <= 360
    visit.screenshot(f"phone-{visit.scheme()}-list", full_page=True)


# All text on a plain colour with a contrast below 4.5 (WCAG 2.2)
LOW_CONTRAST = r"""() => {
  const parse = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const linear = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const background = (element) => {
    for (let under = element; under; under = under.parentElement) {
      const colour = parse(getComputedStyle(under).backgroundColor);
      if (colour.length && (colour[3] ?? 1) > 0.6) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const element of document.querySelectorAll(".mr *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!hasText || !element.offsetParent || element.closest(".poster, .hero, .sr")) continue;
    const colours = [parse(getComputedStyle(element).color), background(element)];
    const [light, dark] = colours.map(luminance).sort((x, y) => y - x);
    const ratio = (light + 0.05) / (dark + 0.05);
    const text = element.textContent.trim().slice(0, 30);
    if (ratio < 4.5) found.push(`${element.className || element.tagName}: ${text} ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@in_both_themes({"reduced_motion": "reduce"})
def test_contrast(app, visit):
    visit.open(app.url).choose_user(3)
    visit.page.click('[data-do="filters"]')
    visit.click('[data-genre="Drama"]')
    visit.click(f"{CARD.format(1)} [data-act=like]")
    assert visit.page.evaluate(LOW_CONTRAST) == []
    visit.click(f"{CARD.format(1)} [data-do=explain]")
    assert visit.page.evaluate(LOW_CONTRAST) == []
    visit.click("dialog [data-do=close]")
    visit.page.click('[data-do="theme"]')  # switches to the other theme
    assert visit.page.evaluate(LOW_CONTRAST) == []
    assert visit.page.evaluate("getComputedStyle(document.querySelector('.mr')).colorScheme") != visit.scheme()
