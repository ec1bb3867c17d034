"""An inspection says what a run would do, and writes nothing."""

import pytest
from helpers import write_archive

from movierec.config import DataError
from movierec.data.archive import Archive
from movierec.data.inspect import inspect, own_data_from_files
from movierec.data.own_data import OwnData

EVENTS = "userId,movieId,rating,timestamp\n1,10,4.5,1600000000\n1,11,3,1600000001\n2,99,5,1600000002\n"
FILMS = "movieId,title,note\n10,Heat (1995),x\n11,Babe,y\n"


@pytest.fixture
def files(tmp_path):
    for name, text in (("log.csv", EVENTS), ("films.csv", FILMS)):
        (tmp_path / name).write_text(text)
    return [tmp_path / "films.csv", tmp_path / "log.csv"]


def test_an_inspection_counts_and_names_what_would_be_rejected(files, tmp_path):
    found = inspect(own_data_from_files(files, OwnData(files[0])))
    assert found.counts == {"ratings": 2, "users": 1, "movies": 2}
    assert [(kind["file"], kind["line"], kind["count"]) for kind in found.rejects] == [("log.csv", 4, 1)]
    assert "not used: note" in found.lines[-2] and found.lines[-1] == "userId: whole numbers; movieId: whole numbers"
    assert found.events["title"].tolist() == ["Heat (1995)", "Babe"] and found.events["rating"].tolist() == [4.5, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films.csv", "log.csv"], "nothing is written"


def test_columns_without_values_are_not_shown(tmp_path):
    (tmp_path / "pairs.csv").write_text("userId,movieId\nann,Heat\n")
    found = inspect(OwnData(tmp_path / "pairs.csv"))
    assert found.events.columns.tolist() == ["userId", "title"] and "userId: text" in found.lines[-1]


def test_which_file_holds_the_events(files, tmp_path):
    assert own_data_from_files(files, OwnData(files[0])).ratings.name == "log.csv"
    assert own_data_from_files(files[1:], OwnData(files[0])).movies is None
    with pytest.raises(DataError, match="neither file has events"):
        own_data_from_files([files[0], files[0]], OwnData(files[0]))
    with pytest.raises(DataError, match="3 files were named"):
        own_data_from_files([*files, files[0]], OwnData(files[0]))


def test_an_archive(tmp_path):
    found = inspect(Archive.open(write_archive(tmp_path / "archive")))
    assert "MovieLens data in the layout csv" in found.lines[0] and found.rejects == []
    assert found.events["userId"].str.fullmatch(r"\d+").all()
