"""Generated posters: readable, different from each other, the same everywhere, and safe whatever a title contains."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from movierec.serving.motifs import MOTIFS, PALETTES, PLAIN, Palette, lead_genre, luminance
from movierec.serving.poster_art import balanced_lines, fit_text, generated_poster, text_width, title_parts

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = {"svg", "title", "defs", "linearGradient", "stop", "g", "path", "rect", "circle", "ellipse", "text", "tspan"}
LONG_TITLE = "The Assassination of Jesse James by the Coward Robert Ford"


def texts(poster):
    return [" ".join(part.text or "" for part in text) for text in ET.fromstring(poster).iter(f"{SVG}text")]


def without_text(poster):
    return re.sub("<text.*?</text>|<title.*?</title>|f[0-9a-f]{8}", "", poster)


def contrast(first, second):
    """An implementation of its own, after WCAG 2.2."""
    def relative_luminance(colour):
        channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    a, b = relative_luminance(first) + 0.05, relative_luminance(second) + 0.05
    return max(a / b, b / a)


def test_contrast_is_that_of_the_standard():
    assert luminance("#ffffff") == pytest.approx(1) and luminance("#000000") == 0
    grey = Palette("#777777", *["#ffffff"] * 5)  # the well-known grey that just fails
    assert grey.contrast("#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("genre", [*PALETTES, ""])
def test_text_is_readable(genre):
    """Every text against the rectangle that it is on."""
    for movie in range(20):
        root = ET.fromstring(generated_poster(movie, "A Movie", 1999, [genre] if genre else []))
        ground = [part for part in root if part.tag == f"{SVG}rect" and part.get("height") == "513"][-1]
        for text in root.iter(f"{SVG}text"):
            assert contrast(text.get("fill"), ground.get("fill")) >= 4.5
            for line in text:
                y, size = float(line.get("y")), float(text.get("font-size"))
                assert y - size >= float(ground.get("y")) and y < 513


def test_every_genre_has_palettes_and_a_motif():
    colours = [colour for row in [*PALETTES.values(), PLAIN] for palette in row for colour in palette]
    assert list(MOTIFS) == [*PALETTES, ""] and all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)
    assert lead_genre(["Drama", "Comedy", "Sci-Fi"]) == "Sci-Fi" and lead_genre([]) == lead_genre(["Telenovela"]) == ""


def test_a_movie_has_the_same_poster_in_every_process():
    mine = generated_poster(1, "Toy Story", 1995, ["Adventure", "Animation"])
    program = ("import sys; from movierec.serving.poster_art import generated_poster as g; "
               "sys.stdout.buffer.write(g(1, 'Toy Story', 1995, ['Adventure', 'Animation']).encode())")
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    assert mine.encode() == other.stdout
    assert texts(mine) == ["Toy Story", "1995 · Animation · Adventure"]


@pytest.mark.parametrize("genre", [*PALETTES, "", "Telenovela"])
def test_posters_are_small_and_no_two_are_alike(genre):
    drawn = [generated_poster(movie, "The Same", 2000, [genre]) for movie in range(150)]
    assert len(set(map(without_text, drawn))) == 150
    assert max(len(poster.encode()) for poster in drawn) < 6_000
    assert without_text(generated_poster(1, "One", 2000, [genre])) != without_text(drawn[1])  # the title counts, too


@given_settings(max_examples=50, deadline=None)
@given(
    st.one_of(st.integers(0, 10**9), st.text(max_size=40)), st.text(max_size=300),
    st.one_of(st.none(), st.integers(-5, 99_999)),
    st.lists(st.one_of(st.sampled_from([*PALETTES]), st.text(max_size=60)), max_size=5))
def test_any_title_gives_well_formed_svg_without_links(movie, title, year, genres):
    poster = generated_poster(movie, title, year, genres)
    root = ET.fromstring(poster.encode())
    assert root.get("viewBox") == "0 0 342 513" and len(poster.encode()) < 12_000
    assert {part.tag.removeprefix(SVG) for part in root.iter()} <= DRAWN
    for part in root.iter():
        assert not any("href" in name or name.startswith("on") or name == "style" for name in part.attrib)
    markup = re.sub("<title.*?</title>|<tspan.*?</tspan>", "", poster, flags=re.S)
    assert re.findall(r"url\((?!#)|https?://(?!www\.w3\.org/2000/svg\")", markup) == []


def test_markup_in_titles_stays_text():
    title = """</text><script>alert("x")</script>&amp;'"""
    poster = generated_poster(1, title, 2000, ["<b>Drama</b>"])
    assert "<script" not in poster and "&lt;script&gt;" in poster and "&lt;b&gt;Drama" in poster
    assert ET.fromstring(poster).find(f"{SVG}title").text == f"{title} (2000)"


@pytest.mark.parametrize("title", [
    "Heat", "Supercalifragilisticexpialidocious", "千と千尋の神隠し", "x" * 400, "Amélie Žižek Łódź Ñandú",
    "Dr. Strangelove or How I Learned to Stop Worrying and Love the Bomb", "기생충과 그 밖의 이야기들",
    "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z " * 4,
])
def test_titles_fit_into_their_box(title):
    lines, size = fit_text(title, 294, 120, 44, 15)
    assert 15 <= size <= 44 or len(lines) == 1
    assert all(text_width(line) * size <= 294.01 for line in lines) and len(lines) * size * 1.12 <= 120.01
    shown, whole = "".join(lines).replace(" ", ""), title.replace(" ", "")
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))


def test_long_titles_are_smaller():
    assert fit_text("Heat", 294, 120, 44, 15)[1] == 44 > fit_text(LONG_TITLE, 294, 120, 44, 15)[1]


def all_ways(words, lines):
    """All ways to break words into lines."""
    yield [" ".join(words)]
    if lines > 1:
        for first in range(1, len(words)):
            yield from ([" ".join(words[:first]), *rest] for rest in all_ways(words[first:], lines - 1))


WORDS = st.sampled_from(["a", "bb", "lli", "Wm", "ccccc", "dddddddd"])


@given(st.lists(WORDS, min_size=1, max_size=9), st.integers(1, 4))
def test_lines_are_as_even_as_possible(words, number):
    lines = balanced_lines(" ".join(words), number)
    assert " ".join(lines) == " ".join(words) and len(lines) <= number
    best = min(max(map(text_width, way)) for way in all_ways(words, number))
    space = text_width(" ")  # one at a line's end counts while the text is broken
    assert max(map(text_width, lines)) <= best + space + 1e-9


@pytest.mark.parametrize(("title", "parts"), [
    ("Heat", ("Heat", "")),
    ("Seven (a.k.a. Se7en) (1995)", ("Seven", "Se7en")),
    ("City of God (Cidade de Deus)", ("City of God", "Cidade de Deus")),
    ("Mission: Impossible", ("Mission: Impossible", "")),
    ("The Lord of the Rings: The Two Towers (2002)", ("The Lord of the Rings", "The Two Towers")),
    ("(500) Days of Summer", ("(500) Days of Summer", "")),
    ("Fish (I)mplied", ("Fish (I)mplied", "")),
    ("(2009)", ("(2009)", "")),
    ("a\x00b\nc\ud800", ("a b c", "")),
    ("", ("", "")),
])
def test_title_parts(title, parts):
    assert title_parts(title) == parts
