"""The cache of images, and which poster is served."""

import os

import pytest

from movierec.artifacts import paths
from movierec.config import load_settings
from movierec.serving.poster_art import generated_poster
from movierec.serving.posters import ImageCache, Posters, image_kind

JPEG, PNG = b"\xff\xd8\xff\xe0" + bytes(5_000), b"\x89PNG\r\n\x1a\n" + bytes(4_000)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(3_000)
NOW = 1_700_000_000


def test_image_kinds():
    assert [image_kind(content) for content in (JPEG, PNG, WEBP)] == ["jpg", "png", "webp"]


@pytest.mark.parametrize("content", [
    b"", b"\xff\xd8", b"<html>", b"GIF89a", b"<svg xmlns=", b"RIFF0000WAVE", b"xxxx0000WEBP"])
def test_anything_else_is_no_image(content):
    assert image_kind(content) is None


def test_the_least_recently_used_image_is_deleted_first(tmp_path):
    cache = ImageCache(tmp_path / "new", 20_100)
    for time, movie in enumerate((1, 2, 3, 4)):
        assert cache.put(movie, JPEG, NOW + time)
    cache.touch(1, NOW + 10)
    again = ImageCache(tmp_path / "new", 20_100)  # as another process opens it
    assert again.put(5, JPEG, NOW + 11) and again.put(6, JPEG, NOW + 12)
    assert [movie for movie in range(1, 7) if again.find(movie)] == [1, 4, 5, 6] and len(again) == 4
    assert not again.put(7, JPEG, NOW + 13, protect_since=NOW)
    assert not again.put(7, bytes(30_000), NOW + 13)  # larger than the whole cache
    assert len(again) == 4 and not list((tmp_path / "new").glob(".*"))


def test_an_image_is_replaced_whatever_its_format(tmp_path):
    cache = ImageCache(tmp_path, 8_000)
    assert cache.put(1, JPEG, NOW) and cache.put(1, PNG, NOW + 1)
    assert [file.name for file in tmp_path.iterdir()] == ["1.png"]
    cache.remove(1)
    cache.remove(1)
    assert cache.find(1) is None and len(cache) == 0


def test_what_a_killed_run_left_is_deleted(tmp_path):
    (tmp_path / ".1.jpg.99.tmp").write_bytes(JPEG[:100])
    assert ImageCache(tmp_path, 10_000).put(2, JPEG, NOW)
    assert [file.name for file in tmp_path.iterdir()] == ["2.jpg"]


@pytest.fixture
def settings(tmp_path):
    settings = load_settings(data_dir=tmp_path)
    ImageCache(paths(settings).posters, 100_000).put(1, JPEG, NOW)
    return settings


def test_an_image_is_served_if_there_is_one(settings):
    posters = Posters(settings)
    image, drawn = (posters.of(movie, f"Movie {movie}", 2000, ["Drama"], NOW) for movie in (1, 2))
    assert (image.content, image.media_type, image.from_tmdb) == (JPEG, "image/jpeg", True)
    assert (drawn.media_type, drawn.from_tmdb) == ("image/svg+xml", False)
    assert drawn.content.decode() == generated_poster(2, "Movie 2", 2000, ["Drama"])
    assert image.etag != drawn.etag == posters.of(2, "Movie 2", 2000, ["Drama"], NOW).etag
    assert posters.of("../../1", "Movie", None, [], NOW).media_type == "image/svg+xml" and posters.count() == 1


@pytest.mark.parametrize(("requested", "recorded"), [(NOW + 7_200, NOW + 7_200), (NOW + 60, NOW)])
def test_use_is_recorded_once_an_hour(settings, requested, recorded):
    file = paths(settings).posters / "1.jpg"
    os.utime(file, (NOW, NOW))
    modified = file.stat().st_mtime
    Posters(settings).of(1, "Movie 1", 2000, ["Drama"], requested)
    assert file.stat().st_mtime == modified
    assert file.stat().st_atime == recorded or recorded == NOW  # reading may update it on some file systems
