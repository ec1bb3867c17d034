"""The app in a real browser: what a person does, what they see, and what is on the disk afterwards."""

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

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install 'movierec[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = Path(__file__).resolve().parent / "screenshots"  # git-ignored; also the times that were measured
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def note(**times):
    """Keep what was measured beside the screenshots."""
    file = SHOTS / "times.json"
    file.write_text(json.dumps((json.loads(file.read_text()) if file.is_file() else {}) | times, indent=1) + "\n")


class Site:
    """`movierec app` on a copy of a run, and the API behind it."""

    def __init__(self, settings, port):
        self.settings, self.api, self.port, self.folders = settings, f"http://127.0.0.1:{port}", port, ("--dataset", settings.dataset, "--data-dir", settings.data_dir, "--reports-dir", settings.reports_dir)
        self.url, self.process = None, None

    def command(self, name, *options):
        return [Path(sys.executable).with_name("movierec"), name, *map(str, (*self.folders, *options))]

    def log(self):
        file = paths(self.settings).feedback
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    def picks(self, user, k=20):
        return [pick["item_idx"] for pick in httpx.get(f"{self.api}/recommend/user/{user}", params={"k": k}).json()["items"]]


@contextmanager
def started(site, output):
    """The app as a person starts it."""
    with output.open("w") as file:
        process = subprocess.Popen(site.command("app", "--port", 0, "--set", f"service.port={site.port}"), stdout=file, stderr=subprocess.STDOUT)
        try:
            wait_for(lambda: process.poll() is not None or "The app: http" in output.read_text(), 120)
            assert process.poll() is None, output.read_text()
            site.url, site.process = re.search(r"The app: (\S+)", output.read_text())[1], process
            yield site
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def copied(small_run, tmp_path_factory):
    """The run in a folder of its own, which may be written to."""
    folder = tmp_path_factory.mktemp("app")
    for name in ("data", "reports"):
        shutil.copytree(getattr(small_run[0], f"{name}_dir"), folder / name)
    SHOTS.mkdir(exist_ok=True)
    return small_run[0].model_copy(update={"data_dir": folder / "data", "reports_dir": folder / "reports"})


@pytest.fixture(scope="module")
def site(copied, tmp_path_factory):
    with started(Site(copied, free_port()), tmp_path_factory.mktemp("site") / "output.txt") as site:
        yield site


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as top_source:
        chromium = top_source.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Seen:
    """A page, and what is to be seen on it."""

    def __init__(self, page):
        self.page, self.errors, self.asked = page, [], []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def open(self, url):
        self.page.goto(url, wait_until="commit")
        self.precomputed()
        return self

    def ready(self):
        self.page.wait_for_selector('.mr [data-kind="top"] .card', timeout=60_000)
        self.quiet()

    def quiet(self):
        """Everything that was told has been answered."""
        self.page.wait_for_function("(() => { const told = document.querySelector('.mr').dataset; return +told.answered === +told.told; })()", timeout=60_000)

    def do(self, action):
        """Do something, and wait until the program has answered."""
        told = self.page.evaluate("+document.querySelector('.mr').dataset.told")
        action()
        self.page.wait_for_function(f"+document.querySelector('.mr').dataset.told > {told}", timeout=60_000)
        self.quiet()
        return int(self.page.evaluate("document.querySelector('.mr').dataset.took"))

    def click(self, selector):
        return self.do(lambda: self.page.click(selector))

    def user(self, number):
        return self.do(lambda: (self.page.fill("#mr-user", str(number)), self.page.press("#mr-user", "Enter")))

    def row(self, kind="top"):
        return self.page.eval_on_selector_all(f'[data-kind="{kind}"] .card', "cards => cards.map((card) => +card.dataset.item)")

    def shot(self, name, **more):
        self.page.evaluate("document.querySelectorAll('.toast').forEach((toast) => toast.remove())")
        self.page.wait_for_timeout(700)  # what glides has arrived
        self.page.screenshot(path=SHOTS / f"{name}.png", **more)


@pytest.fixture
def seen(browser, request):
    options = {"viewport": {"width": 1400, "height": 1000}, "color_scheme": "dark"} | getattr(request, "param", {})
    context = browser.new_context(**options)
    seen = Seen(context.new_page())
    yield seen
    context.close()
    assert seen.errors == []


CARD = '[data-kind="top"] .card:nth-child({})'


def test_the_first_page(site, seen):
    begun = time.monotonic()
    seen.page.goto(site.url, wait_until="commit")
    seen.page.wait_for_selector('.mr [data-kind="top"] .card', timeout=60_000)
    note(first_page_seconds=round(time.monotonic() - begun, 2))
    seen.quiet()
    assert seen.row() == site.picks(0) and {"because", "trending", "genre"} <= set(seen.page.eval_on_selector_all(".row", "rows => rows.map((row) => row.dataset.kind)"))
    assert [url for url in seen.asked if not url.startswith((site.url, "data:", "blob:"))] == []  # nothing from elsewhere
    assert "load_settings" not in seen.page.inner_text("body") and seen.page.query_selector(".jp-InputArea") is None  # no code
    seen.shot("desktop-dark")


def test_choosing_a_user(site, seen):
    seen.open(site.url)
    note(user_milliseconds=seen.user(41))
    assert seen.row() == site.picks(41)
    seen.do(lambda: (seen.page.focus(".slider"), seen.page.press(".slider", "ArrowRight")))
    assert seen.row() == site.picks(42) and seen.page.input_value("#mr-user") == "42"
    seen.user(99_999)
    assert seen.page.input_value("#mr-user") == "609" and seen.row() == site.picks(609)
    seen.page.reload()
    seen.ready()
    assert seen.page.input_value("#mr-user") == "609" and seen.row() == site.picks(609)  # the browser remembers
    seen.click('[data-do="surprise"]')
    assert seen.row() == site.picks(int(seen.page.input_value("#mr-user")))


def test_a_like_counts_is_on_the_disk_and_can_be_undone(site, seen):
    seen.open(site.url).user(41)
    before, lines = seen.row(), len(site.log())
    item = before[1]
    took = seen.click(f"{CARD.format(2)} [data-act=like]")
    note(like_milliseconds=took)
    after, (line,) = seen.row(), site.log()[lines:]
    assert (line["user_idx"], line["item_idx"], line["action"]) == (41, item, "like")
    assert item not in after and after != before and after == site.picks(41)
    assert seen.page.query_selector('[data-kind="top"] .badge.move:not([hidden])') and seen.page.query_selector(f'.chip.like[data-item="{item}"]')
    assert "Boosted by your likes" in seen.page.inner_text(".rows")
    seen.shot("desktop-liked")
    seen.click(f"{CARD.format(1)} [data-act=dislike]")
    assert after[0] not in seen.row()
    seen.click(".toast button")
    assert seen.row() == after
    note(undo_milliseconds=seen.click(f'.chip.like[data-item="{item}"] button'))
    assert seen.row() == before and [one["action"] for one in site.log()[lines:]] == ["like", "dislike", "undislike", "unlike"]


def test_by_keyboard(site, seen):
    seen.open(site.url).user(7)
    _, second, third = seen.row()[:3]
    seen.page.focus(CARD.format(1))
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.evaluate("+document.activeElement.dataset.item") == third
    seen.do(lambda: seen.page.keyboard.press("s"))
    assert seen.row("saves") == [third] and site.log()[-1]["action"] == "save"
    assert seen.page.evaluate("+document.activeElement.dataset.item") == third  # the focus stays
    seen.page.keyboard.press("ArrowLeft")
    seen.do(lambda: seen.page.keyboard.press("l"))
    assert site.log()[-1]["item_idx"] == second and second not in seen.row()
    seen.do(lambda: (seen.page.focus(CARD.format(1)), seen.page.keyboard.press("w")))
    assert seen.page.query_selector("dialog[open]")
    seen.do(lambda: seen.page.keyboard.press("Escape"))
    assert seen.page.query_selector("dialog[open]") is None and seen.page.evaluate("+document.activeElement.dataset.item") == seen.row()[0]
    stops = seen.page.eval_on_selector_all('[data-kind="top"] [tabindex="0"]', "all => all.length")
    assert stops == 5  # a row is one card and its four buttons, however many films it has


def test_why_history_and_debug(site, seen):
    seen.open(site.url).user(41)
    note(why_milliseconds=seen.click(f"{CARD.format(1)} [data-do=explain]"))
    told = httpx.post(f"{site.api}/why", json={"user_idx": 41, "item_idx": seen.row()[0]}).json()
    text = seen.page.inner_text("dialog")
    assert told["movie"]["reason"] in text and all(one["source"] in text for one in told["sources"]) and all(share["feature"] in text for share in told["contributions"])
    assert len(seen.page.query_selector_all("dialog .axis i")) == (len(told["contributions"]) + 1 if told["contributions"] else 0)  # only V3 can tell shares, and on so little data another may be the best
    seen.shot("desktop-why")
    seen.click("dialog [data-do=close]")
    seen.click('[data-do="history"]')
    watched = httpx.get(f"{site.api}/users/41/history").json()
    assert watched[0]["title"] in seen.page.inner_text("dialog tbody tr:first-child") and len(seen.page.query_selector_all("dialog tbody tr")) == len(watched)
    seen.shot("desktop-history")
    seen.click("dialog [data-do=close]")
    seen.click('[data-do="debug"]')
    assert {"popularity", "als", "sequential"} <= {name.split(":")[0] for name in seen.page.eval_on_selector_all("dialog summary", "all => all.map((one) => one.textContent)")}


def test_somebody_new(site, seen):
    seen.open(site.url)
    seen.click('[data-do="newcomer"]')
    nothing = seen.row()
    seen.do(lambda: seen.page.type(".combo input", "the matirx"))
    seen.page.wait_for_selector("[role=option]")
    assert "The Matrix" in seen.page.inner_text("[role=option]:first-child")
    seen.page.keyboard.press("ArrowDown")
    seen.page.keyboard.press("ArrowUp")
    note(pick_milliseconds=seen.do(lambda: seen.page.keyboard.press("Enter")))
    assert "The Matrix" in seen.page.inner_text(".picked") and seen.row() != nothing
    assert "The Matrix" in seen.page.inner_text('[data-kind="because"] h2')
    lines = len(site.log())
    liked = seen.row()[0]
    seen.click(f"{CARD.format(1)} [data-act=like]")
    assert liked not in seen.row() and len(site.log()) == lines  # a newcomer has no log
    seen.shot("desktop-newcomer")
    films = seen.row()
    seen.page.reload()
    seen.ready()
    assert "The Matrix" in seen.page.inner_text(".picked") and seen.row() == films
    seen.click(".picked button")
    assert seen.page.inner_text(".picked") == "" and seen.row() != films


def test_tuning(site, seen):
    seen.open(site.url).user(5)
    plain = seen.row()
    seen.page.click('[data-do="tune"]')
    note(filter_milliseconds=seen.click('[data-genre="Comedy"]'))
    seen.do(lambda: (seen.page.fill("#mr-from", "1980"), seen.page.press("#mr-from", "Enter")))
    films = [httpx.get(f"{site.api}/movies/{item}").json() for item in seen.row()[:8]]
    assert films and all("Comedy" in film["genres"] and film["year"] >= 1980 for film in films)
    seen.shot("desktop-tune")
    seen.click('[data-genre="Comedy"]')
    seen.do(lambda: (seen.page.fill("#mr-from", ""), seen.page.press("#mr-from", "Enter")))
    assert seen.row() == plain
    seen.do(lambda: seen.page.check("#mr-hide"))
    others = seen.row()
    assert not set(plain) & set(others)
    seen.click('[data-do="others"]')
    assert not (set(plain) | set(others)) & set(seen.row())
    seen.do(lambda: seen.page.uncheck("#mr-hide"))
    seen.do(lambda: (seen.page.focus("#mr-diversity"), seen.page.press("#mr-diversity", "End")))
    assert seen.row()[0] == plain[0] and seen.row() != plain
    seen.do(lambda: seen.page.press("#mr-diversity", "Home"))
    seen.click(f"{CARD.format(1)} [data-act=like]")
    assert seen.row() != plain
    seen.do(lambda: seen.page.uncheck("#mr-feedback"))
    assert seen.row() == plain
    seen.page.click('[data-do="view"]')
    assert seen.page.get_attribute(".mr", "data-view") == "list"
    seen.shot("desktop-list")


def test_the_api_goes_and_comes_back(copied, seen, tmp_path):
    """And the command that started one stops it, and nothing else."""
    with started(Site(copied, free_port()), tmp_path / "output.txt") as site:
        seen.open(site.url).user(12)
        saved = seen.row()[2]
        seen.click(f"{CARD.format(3)} [data-act=save]")
        films = seen.row()
        api_of(site).terminate()
        wait_for(lambda: not answers(f"{site.api}/health"))
        seen.click(f"{CARD.format(1)} [data-act=like]")
        assert "othing answers at" in seen.page.inner_text(".banner") and seen.row() == films and seen.page.query_selector('[data-act="like"][aria-pressed="true"]') is None
        seen.shot("desktop-away")
        again = subprocess.Popen(site.command("api", "--port", site.port), stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: answers(f"{site.api}/health"))
            seen.click(".banner button")
            assert not seen.page.is_visible(".banner") and seen.row() == films and seen.row("saves") == [saved]  # what was said is still there
            seen.click(f"{CARD.format(1)} [data-act=like]")
            assert (site.log()[-1]["user_idx"], site.log()[-1]["action"]) == (12, "like")
        finally:
            stop(again)


def api_of(site):
    """The API that the app has started."""
    (api,) = [child for child in psutil.Process(site.process.pid).children() if "api" in child.cmdline()]
    return api


def stop(process):
    process.terminate()
    process.wait(30)


def answers(url):
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_command_stops_what_it_started(copied, tmp_path):
    with started(Site(copied, free_port()), tmp_path / "output.txt") as site:
        assert answers(f"{site.api}/health")
        parent = psutil.Process(site.process.pid)
        wait_for(lambda: len(parent.children(recursive=True)) >= 2)  # the API and a warm kernel
        family = parent.children(recursive=True)
        other = subprocess.run(site.command("app", "--port", site.url.rpartition(":")[2], "--api-url", site.api), capture_output=True, text=True, timeout=60)
        assert other.returncode == 1 and other.stderr.splitlines()[-1].startswith("Error: 127.0.0.1 port ") and answers(f"{site.api}/health")
    psutil.wait_procs(family, 20)
    assert not [one for one in family if one.is_running()] and not answers(f"{site.api}/health") and site.process.returncode == 0


def test_a_command_that_is_killed_leaves_nothing_behind(copied, tmp_path):
    with started(Site(copied, free_port()), tmp_path / "output.txt") as site:
        family = psutil.Process(site.process.pid).children(recursive=True)
        assert api_of(site) in family
        site.process.kill()
        _, left = psutil.wait_procs(family, 60)
        assert not left and not answers(f"{site.api}/health")


def test_the_command_says_what_is_wrong(copied, tmp_path):
    site = Site(copied, free_port())

    def fails(*options):
        done = subprocess.run(site.command("app", "--port", 0, *options), capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]

    assert fails("--api-url", site.api) == f"Error: nothing answers at {site.api}, which app.api_url names"
    assert "service.port a number" in fails("--set", "service.port=0")
    site.folders = ("--dataset", "tinny", *site.folders[2:])
    assert fails("--set", f"service.port={site.port}") == "Error: the API couldn't be started; what it said stands above"


PHONE = {"viewport": {"width": 360, "height": 780}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@pytest.mark.parametrize("seen", [PHONE | {"color_scheme": "light"}, PHONE | {"color_scheme": "dark"}], indirect=True, ids=["light", "dark"])
def test_a_phone(site, seen):
    seen.open(site.url).user(41)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360  # nothing sticks out
    small = seen.page.eval_on_selector_all(".mr button", "all => all.filter((one) => one.offsetParent && Math.min(one.getBoundingClientRect().width, one.getBoundingClientRect().height) < 24).length")
    assert small == 0  # WCAG 2.2, target size
    seen.page.locator(f"{CARD.format(2)} [data-act=save]").scroll_into_view_if_needed()
    seen.do(lambda: seen.page.tap(f"{CARD.format(2)} [data-act=save]"))
    assert len(seen.row("saves")) == 1
    seen.do(lambda: seen.page.tap('[data-kind="saves"] [data-act=save]'))
    seen.page.evaluate("scrollTo(0, 0)")
    scheme = "light" if seen.page.evaluate("matchMedia('(prefers-color-scheme: light)').matches") else "dark"
    seen.shot(f"phone-{scheme}")
    seen.page.click('[data-do="tune"]')
    seen.page.click('[data-do="view"]')
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360
    seen.shot(f"phone-{scheme}-list", full_page=True)


# Ratios of WCAG 2.2 for all text that stands on a plain colour.
CONTRAST = r"""() => {
  const parse = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const found = [];
  for (const one of document.querySelectorAll(".mr *")) {
    const text = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!text || !one.offsetParent || one.closest(".poster, .hero, .sr")) continue;
    let under = one, back = null;
    while (under && !back) { const style = getComputedStyle(under), colour = parse(style.backgroundColor); if (colour.length && (colour[3] ?? 1) > 0.6) back = colour; under = under.parentElement; }
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(back ?? [255, 255, 255])].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.push(`${one.className || one.tagName}: ${one.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("seen", [{"color_scheme": "light", "reduced_motion": "reduce"}, {"color_scheme": "dark", "reduced_motion": "reduce"}], indirect=True, ids=["light", "dark"])
def test_contrast(site, seen):
    seen.open(site.url).user(3)
    seen.page.click('[data-do="tune"]')
    seen.click('[data-genre="Drama"]')
    seen.click(f"{CARD.format(1)} [data-act=like]")
    assert seen.page.evaluate(CONTRAST) == []
    seen.click(f"{CARD.format(1)} [data-do=explain]")
    assert seen.page.evaluate(CONTRAST) == []
    seen.click("dialog [data-do=close]")
    seen.page.click('[data-do="theme"]')  # the switch turns it round
    assert seen.page.evaluate(CONTRAST) == []
    scheme = "light" if seen.page.evaluate("matchMedia('(prefers-color-scheme: light)').matches") else "dark"
    assert seen.page.evaluate("getComputedStyle(document.querySelector('.mr')).colorScheme") != scheme
