"""The feedback log: what is acknowledged is kept, with several writers and when one is killed."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from movierec.artifacts import paths
from movierec.config import DataError, NotFoundError
from movierec.serving import feedback
from movierec.serving.feedback import ACTIONS, FeedbackLog, FeedbackRecord, LiveService, apply_action, move_old_log
from movierec.serving.model import UserFeedback

USERS, MOVIES = np.arange(100) * 3, np.arange(50) * 7


def make_log(folder):
    return FeedbackLog(folder / "ui_feedback.jsonl", USERS, MOVIES)


def test_what_actions_mean():
    before = apply_action(apply_action(UserFeedback(), 1, "like", 10), 2, "like", 11)
    again = apply_action(before, 1, "like", 12)
    assert again == UserFeedback(likes={2: 11, 1: 12}) and list(again.likes) == [2, 1], "the last one is the latest"
    disliked = apply_action(before, 1, "dislike", 12)
    assert disliked == UserFeedback({2: 11}, {1: 12}), "no movie is liked and disliked at once"
    assert apply_action(disliked, 1, "like", 13) == UserFeedback({2: 11, 1: 13})
    assert apply_action(before, 1, "save", 12) == UserFeedback({1: 10, 2: 11}, {}, {1: 12}), "saving isn't liking"
    for kind in ("like", "dislike", "save"):
        done = apply_action(UserFeedback(), 5, kind, 1)
        assert apply_action(done, 5, f"un{kind}", 2) == UserFeedback()
        assert apply_action(UserFeedback(), 5, f"un{kind}", 2) == UserFeedback()
    assert before == UserFeedback({1: 10, 2: 11}), "an action makes a new object"


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(ACTIONS)), max_size=30))
def test_the_last_action_on_a_movie_counts(actions):
    current = UserFeedback()
    for time, (item, action) in enumerate(actions):
        current = apply_action(current, item, action, time)
    for item in range(4):
        mine = [action for other, action in actions if other == item]
        state = None
        for action in mine:  # a movie is liked, disliked or neither
            if action in ("like", "dislike"):
                state = action
            elif action == f"un{state}":
                state = None
        assert (item in current.likes, item in current.dislikes) == (state == "like", state == "dislike")
        saves = [action for action in mine if action.endswith("save")]
        assert (item in current.saves) == (saves[-1:] == ["save"])


def test_what_is_written_is_read_by_others_and_after_a_restart(tmp_path):
    first, second = make_log(tmp_path), make_log(tmp_path)
    assert first.add(FeedbackRecord(4, 6, "like", 100, "a")) == (UserFeedback({6: 100}), True)
    assert second.feedback_of(4) == UserFeedback()
    second.refresh()
    assert second.feedback_of(4) == make_log(tmp_path).feedback_of(4) == UserFeedback({6: 100})
    assert second.feedback_of(5) == UserFeedback()
    ids = {"userId": 12, "movieId": 42, "user_idx": 4, "item_idx": 6}
    assert json.loads(first.path.read_text()) == ids | {"time": 100, "action": "like", "key": "a"}
    assert first.path.stat().st_mode & 0o077 == 0, "feedback is private: readable by its owner only"


def test_a_key_counts_once_in_all_processes_and_after_a_restart(tmp_path):
    first, second = make_log(tmp_path), make_log(tmp_path)
    first.add(FeedbackRecord(1, 2, "save", 100, "k"))
    assert second.add(FeedbackRecord(1, 2, "save", 200, "k")) == (UserFeedback(saves={2: 100}), False)
    assert make_log(tmp_path).add(FeedbackRecord(1, 2, "save", 300, "k"))[1] is False
    assert first.path.read_bytes().count(b"\n") == 1
    for other in (FeedbackRecord(1, 3, "save", 100, "k"), FeedbackRecord(1, 2, "like", 100, "k")):
        with pytest.raises(DataError, match="the key 'k' was used before, for save of item 2"):
            second.add(other)
    assert second.add(FeedbackRecord(2, 3, "save", 100, "k"))[1], "another user's key is another key"
    second.add(FeedbackRecord(1, 2, "unsave", 150))
    assert second.add(FeedbackRecord(1, 2, "save", 100, "k")) == (UserFeedback(), False), "a late repetition"


def test_a_torn_last_line_is_skipped_and_reported(tmp_path):
    log = make_log(tmp_path)
    log.add(FeedbackRecord(1, 1, "like", 10))
    whole = log.path.read_bytes()
    for cut in range(1, len(whole)):
        log.path.write_bytes(whole + whole[:-cut])
        again = make_log(tmp_path)
        assert again.feedback_of(1) == UserFeedback({1: 10}) and again.reader.skipped == 1 and again.reader.lines == 1
        again.add(FeedbackRecord(1, 2, "like", 20))
        for reader in (again, make_log(tmp_path)):
            assert reader.feedback_of(1).likes == {1: 10, 2: 20} and reader.reader.lines == 3
            assert reader.reader.skipped == (cut > 1), "cut 1: only the end of the line was lost"
            assert all("line 2: " in problem for problem in reader.reader.problems)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"17",
        b"\xff\xfe",
        b'{"userId": 3}',
        b'{"userId": 3, "movieId": 7, "action": "love", "time": 1}',
        b'{"userId": 4, "movieId": 7, "action": "like", "time": 1}',
        b'{"userId": "3", "movieId": 7, "action": "like", "time": 1}',
        b'{"userId": 3, "movieId": 7, "action": "like", "time": "noon"}',
        b'{"userId": 3, "movieId": 7, "action": "like"}',
        b'{"userId": null, "movieId": 7, "action": "like", "time": 1}',
        b'{"userId": 3, "movieId": 7, "action": ["like"], "time": 1}',
        b"[" * 100_000,
        b'{"userId": 3, "movieId": 7, "action": "like", "time": 1, "key": {}}',
        b'{"userId": 1e999, "movieId": 7, "action": "like", "time": 1}',
    ],
)
def test_unusable_lines_are_skipped(tmp_path, line):
    log = make_log(tmp_path)
    log.add(FeedbackRecord(1, 1, "like", 10))
    with log.path.open("ab") as file:
        file.write(line + b"\n")
    log.add(FeedbackRecord(1, 2, "like", 20))
    assert log.feedback_of(1) == UserFeedback({1: 10, 2: 20}) == make_log(tmp_path).feedback_of(1)
    assert log.reader.skipped == 1 and log.reader.problems[0].startswith("line 2: ")


def test_feedback_survives_new_indices(tmp_path):
    """The dataset grows, and all indices change: what counts are the dataset's own ids."""
    make_log(tmp_path).add(FeedbackRecord(4, 6, "like", 100))
    log = FeedbackLog(tmp_path / "ui_feedback.jsonl", np.sort(np.append(USERS, 1)), np.sort(np.append(MOVIES, [1, 2])))
    assert log.feedback_of(5) == UserFeedback({8: 100}) and log.feedback_of(4) == UserFeedback()
    log = FeedbackLog(tmp_path / "ui_feedback.jsonl", USERS, MOVIES[7:])
    assert log.feedback_of(4) == UserFeedback() and log.reader.skipped == 1


def test_ids_may_be_text(tmp_path):
    users = np.array(["ann", "bob"], dtype=object)
    FeedbackLog(tmp_path / "log", users, MOVIES).add(FeedbackRecord(1, 3, "dislike", 5))
    assert FeedbackLog(tmp_path / "log", users, MOVIES).feedback_of(1) == UserFeedback(dislikes={3: 5})


def test_a_replaced_file_is_read_from_its_start(tmp_path):
    log = make_log(tmp_path)
    log.add(FeedbackRecord(1, 1, "like", 10))
    log.path.rename(tmp_path / "old")
    log.refresh()
    assert log.feedback_of(1) == UserFeedback()
    log.add(FeedbackRecord(2, 2, "like", 20))
    assert log.feedback_of(1) == UserFeedback() and log.feedback_of(2) == UserFeedback({2: 20})
    (tmp_path / "old").replace(log.path)
    log.refresh()
    assert log.feedback_of(1) == UserFeedback({1: 10}) and log.feedback_of(2) == UserFeedback()


def test_a_line_is_on_disk_before_it_is_acknowledged(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(feedback.os, "fsync", lambda file: synced.append(os.fstat(file)))
    log = make_log(tmp_path)
    log.add(FeedbackRecord(1, 1, "like", 10))
    written = log.path.stat()
    assert (synced[0].st_ino, synced[0].st_size) == (written.st_ino, written.st_size)
    assert synced[1].st_ino == tmp_path.stat().st_ino, "and so is the name of a new file"
    log.add(FeedbackRecord(1, 2, "like", 10))
    assert len(synced) == 3 and synced[2].st_size == log.path.stat().st_size


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    log = make_log(tmp_path)
    log.add(FeedbackRecord(1, 1, "like", 10))
    before, write = log.path.read_bytes(), os.write

    def full(file, data):
        if len(data) > 20:
            return write(file, data[:-20])  # as much as there was room for
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(feedback.os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            log.add(FeedbackRecord(1, 2, "like", 20))
    assert log.path.read_bytes() == before and log.feedback_of(1) == UserFeedback({1: 10})
    log.add(FeedbackRecord(1, 2, "like", 20))
    assert log.reader.skipped == 0 and log.feedback_of(1).likes == {1: 10, 2: 20}


def test_sixteen_threads_lose_nothing(tmp_path):
    log = make_log(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: log.add(FeedbackRecord(n % 16, n // 16, "like", n, f"key {n}")), range(16 * 20)))
    assert log.reader.lines == 320 and log.reader.skipped == 0
    assert all(set(log.feedback_of(user).likes) == set(range(20)) for user in range(16))
    assert len({json.loads(line)["key"] for line in log.path.read_text().splitlines()}) == 320


def test_readers_never_lose_what_was_acknowledged(tmp_path):
    """One thread writes, others read: a like that was acknowledged is seen ever after."""
    log, stop, wrong = make_log(tmp_path), threading.Event(), []
    log.add(FeedbackRecord(0, 0, "like", 1))

    def read():
        while not stop.is_set():
            log.refresh()
            if 0 not in log.feedback_of(0).likes:
                wrong.append(log.feedback_of(0))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for n in range(300):
        log.add(FeedbackRecord(1, n % 50, "save", n))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == [] and log.reader.lines == 301


WRITER = """
import sys
import numpy as np
from movierec.serving.feedback import FeedbackLog, FeedbackRecord

log = FeedbackLog(sys.argv[1], np.arange(100) * 3, np.arange(50) * 7)
user, count = int(sys.argv[2]), int(sys.argv[3])
for n in range(count):
    log.add(FeedbackRecord(user, n % 50, "save", n, f"{user}-{n}"))
    print(n, flush=True)
"""


def writer(file, user, count):
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(file), str(user), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_many_processes_lose_nothing(tmp_path):
    file = tmp_path / "ui_feedback.jsonl"
    writers = [writer(file, user, 20) for user in range(8)]
    printed = [process.communicate(timeout=120)[0].split() for process in writers]
    assert printed == [[str(n) for n in range(20)]] * 8
    log = FeedbackLog(file, USERS, MOVIES)
    assert log.reader.lines == 160 and log.reader.skipped == 0
    assert all(set(log.feedback_of(user).saves) == set(range(20)) for user in range(8))


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Writers are killed at any moment, while others write on."""
    file, random_ = tmp_path / "ui_feedback.jsonl", random.Random(0)
    for turn in range(3):
        writers = [writer(file, 4 * turn + one, 100_000) for one in range(4)]
        heard = [[process.stdout.readline() for _ in range(random_.randrange(1, 40))] for process in writers]
        for process in writers:
            os.kill(process.pid, signal.SIGKILL)
        heard = [lines + process.communicate()[0].splitlines() for lines, process in zip(heard, writers, strict=True)]
        log = FeedbackLog(file, USERS, MOVIES)
        kept = {json.loads(line)["key"] for line in file.read_text().splitlines() if line.endswith("}")}
        for one, lines in enumerate(heard):
            assert {f"{4 * turn + one}-{line.strip()}" for line in lines if line.strip()} <= kept
    log.add(FeedbackRecord(99, 1, "like", 1))
    assert FeedbackLog(file, USERS, MOVIES).feedback_of(99) == UserFeedback({1: 1}), "and the log goes on"


def lines(*numbers):
    return b"".join(b'{"line": %d}\n' % number for number in numbers)


@pytest.fixture
def places(tmp_path):
    """Where earlier versions kept the log, and where it is now."""
    (tmp_path / "processed").mkdir()
    return tmp_path / "processed" / "ui_feedback.jsonl", tmp_path / "feedback" / "tiny" / "ui_feedback.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        (lines(1, 2), None, lines(1, 2)),
        (lines(1, 2), lines(3), lines(1, 2, 3)),
        (lines(1, 2), b"", lines(1, 2)),
        (b"", lines(3), lines(3)),
        (b"", None, b""),
        (lines(1) + b'{"li', lines(3), lines(1) + b'{"li\n' + lines(3)),
        (lines(1) + b'{"li', None, lines(1) + b'{"li\n'),
        (lines(1), b'{"li', lines(1) + b'{"li'),
        (lines(1, 1, 1), None, lines(1, 1, 1)),
    ],
)
def test_an_old_log_is_moved_in_front_of_the_new_one(places, old, new, merged):
    before, after = places
    before.write_bytes(old)
    if new is not None:
        after.parent.mkdir(parents=True)
        after.write_bytes(new)
    assert move_old_log(*places) and after.read_bytes() == merged and not before.exists()
    assert not move_old_log(*places) and after.read_bytes() == merged, "moving again changes nothing"
    assert after.stat().st_mode & 0o077 == 0
    assert [file.name for file in after.parent.iterdir() if file.suffix == ".tmp"] == []


def test_a_crash_while_the_log_is_moved_loses_and_doubles_nothing(places, monkeypatch):
    before, after = places
    before.write_bytes(lines(1, 2))
    for step in ("replace", "unlink"):
        with monkeypatch.context() as patched:

            def crash(self, *arguments, **options):
                raise KeyboardInterrupt

            patched.setattr(type(before), step, crash)
            with pytest.raises(KeyboardInterrupt):
                move_old_log(*places)
        assert before.read_bytes() == lines(1, 2), "the old log is there until the new one is complete"
    with after.open("ab") as file:  # written after the crash, by this version and by the earlier one
        file.write(lines(5))
    with before.open("ab") as file:
        file.write(lines(3))
    assert move_old_log(*places) and after.read_bytes() == lines(1, 2, 3, 5) and not before.exists()


def test_many_threads_move_a_log_once(places):
    before, after = places
    before.write_bytes(lines(*range(100)))
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: move_old_log(*places), range(8))) == 1
    assert after.read_bytes() == lines(*range(100))


def test_a_log_that_is_being_read_goes_on_after_the_move(places):
    old_place, path = places
    path.parent.mkdir(parents=True)
    log = FeedbackLog(path, USERS, MOVIES)
    log.add(FeedbackRecord(1, 1, "like", 20))
    FeedbackLog(old_place, USERS, MOVIES).add(FeedbackRecord(1, 2, "like", 10))
    move_old_log(old_place, path)
    log.add(FeedbackRecord(1, 3, "like", 30))
    assert list(log.feedback_of(1).likes) == [2, 1, 3] and log.reader.skipped == 0


def test_opening_the_service_moves_the_log(service, settings, tmp_path):
    here = paths(settings.model_copy(update={"data_dir": tmp_path}))
    here.old_feedback.parent.mkdir(parents=True)
    FeedbackLog(here.old_feedback, service.model.user_ids, service.model.catalogue.movie_ids).add(
        FeedbackRecord(11, 3, "dislike", 1)
    )
    moved = type(service)(replace(service.model, settings=settings.model_copy(update={"data_dir": tmp_path})))
    assert LiveService.open(moved).feedback_of(11).dislikes == {3: 1}
    assert here.feedback == tmp_path / "feedback" / "tiny" / "ui_feedback.jsonl" and here.feedback.exists()
    assert not here.old_feedback.exists()


@pytest.fixture(scope="module")
def live(service, tmp_path_factory):
    return LiveService(service, tmp_path_factory.mktemp("live") / "ui_feedback.jsonl")


def test_feedback_of_another_process_counts(live):
    plain = live.service.recommend(11, 10)
    assert live.recommend(11, 10) == plain
    first = plain.items[0].item_idx
    other = LiveService(live.service, live.log.path)  # another process
    other.add_feedback(FeedbackRecord(11, first, "dislike", 1))
    assert first not in {movie.item_idx for movie in live.recommend(11, 10).items}
    assert live.debug(11, 3)["dislikes"] == [first]
    live.add_feedback(FeedbackRecord(11, first, "undislike", 2))
    assert other.recommend(11, 10) == plain


def test_feedback_on_what_does_not_exist(live):
    for wrong in ((80, 1, "like"), (1, 120, "like"), (1, 1, "love"), (-1, 1, "like"), (1, -1, "like")):
        with pytest.raises(NotFoundError, match="there is no "):
            live.add_feedback(FeedbackRecord(*wrong, 1))
    with pytest.raises(NotFoundError, match="user_idx 80"):
        live.recommend(80)
