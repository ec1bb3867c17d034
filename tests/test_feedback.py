"""The feedback log: what is acknowledged is kept, whoever writes and however they die."""

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

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from movierec.config import DataError, NotFoundError
from movierec.serving import feedback
from movierec.serving.feedback import ACTIONS, Feedback, FeedbackLog, LiveService, said
from movierec.serving.service import RecommenderService, UserFeedback

USERS, MOVIES = np.arange(100) * 3, np.arange(50) * 7


def make_log(tmp_path):
    return FeedbackLog(tmp_path / "ui_feedback.jsonl", USERS, MOVIES)


def test_what_actions_mean():
    taste = said(said(UserFeedback(), 1, "like", 10), 2, "like", 11)
    assert said(taste, 1, "like", 12) == UserFeedback(likes={2: 11, 1: 12}) and list(said(taste, 1, "like", 12).likes) == [2, 1], "the last one is the freshest"
    assert said(taste, 1, "dislike", 12) == UserFeedback({2: 11}, {1: 12}), "nobody likes and dislikes at once"
    assert said(said(taste, 1, "dislike", 12), 1, "like", 13) == UserFeedback({2: 11, 1: 13})
    assert said(taste, 1, "save", 12) == UserFeedback({1: 10, 2: 11}, {}, {1: 12}), "saving is no opinion"
    for kind in ("like", "dislike", "save"):
        assert said(said(UserFeedback(), 5, kind, 1), 5, f"un{kind}", 2) == UserFeedback() == said(UserFeedback(), 5, f"un{kind}", 2)
    assert taste == UserFeedback({1: 10, 2: 11}), "a taste never changes"


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(ACTIONS)), max_size=30))
def test_the_last_word_on_a_film_counts(actions):
    taste = UserFeedback()
    for moment, (item, action) in enumerate(actions):
        taste = said(taste, item, action, moment)
    for item in range(4):
        opinions = [action for other, action in actions if other == item and not action.endswith("save")]
        state = None
        for action in opinions:  # a film is liked, disliked or neither
            state = action if not action.startswith("un") else (None if state == action[2:] else state)
        assert (item in taste.likes, item in taste.dislikes) == (state == "like", state == "dislike")
        saves = [action for other, action in actions if other == item and action.endswith("save")]
        assert (item in taste.saves) == (bool(saves) and saves[-1] == "save")


def test_what_is_written_is_read_by_others_and_after_a_restart(tmp_path):
    first, second = make_log(tmp_path), make_log(tmp_path)
    assert first.add(Feedback(4, 6, "like", 100, "a")) == (UserFeedback({6: 100}), True)
    assert second.taste(4) == UserFeedback()
    second.refresh()
    assert second.taste(4) == make_log(tmp_path).taste(4) == UserFeedback({6: 100}) and second.taste(5) == UserFeedback()
    assert json.loads(first.file.read_text()) == {"time": 100, "userId": 12, "movieId": 42, "action": "like", "user_idx": 4, "item_idx": 6, "key": "a"}
    assert first.file.stat().st_mode & 0o077 == 0, "what people like is nobody else's business"


def test_a_key_counts_once_in_all_processes_and_after_a_restart(tmp_path):
    first, second = make_log(tmp_path), make_log(tmp_path)
    first.add(Feedback(1, 2, "save", 100, "k"))
    assert second.add(Feedback(1, 2, "save", 200, "k")) == (UserFeedback(saves={2: 100}), False)
    assert make_log(tmp_path).add(Feedback(1, 2, "save", 300, "k"))[1] is False and first.file.read_bytes().count(b"\n") == 1
    for other in (Feedback(1, 3, "save", 100, "k"), Feedback(1, 2, "like", 100, "k")):
        with pytest.raises(DataError, match="the key 'k' was used before, for save of item 2"):
            second.add(other)
    assert second.add(Feedback(2, 3, "save", 100, "k"))[1], "another user's key is another key"
    second.add(Feedback(1, 2, "unsave", 150))
    assert second.add(Feedback(1, 2, "save", 100, "k")) == (UserFeedback(), False), "a late repetition changes nothing"


def test_a_torn_last_line_is_skipped_and_reported(tmp_path):
    log = make_log(tmp_path)
    log.add(Feedback(1, 1, "like", 10))
    whole = log.file.read_bytes()
    for cut in range(1, len(whole)):
        log.file.write_bytes(whole + whole[:-cut])
        again = make_log(tmp_path)
        assert again.taste(1) == UserFeedback({1: 10}) and again.skipped == 1 and again.lines == 1
        again.add(Feedback(1, 2, "like", 20))
        for reader in (again, make_log(tmp_path)):
            assert reader.taste(1).likes == {1: 10, 2: 20} and reader.lines == 3
            assert reader.skipped == (cut > 1) and all("line 2: " in problem for problem in reader.problems)  # cut 1: only the end of the line was lost


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b"17", b"\xff\xfe", b'{"userId": 3}', b'{"userId": 3, "movieId": 7, "action": "love", "time": 1}', b'{"userId": 4, "movieId": 7, "action": "like", "time": 1}',
                                  b'{"userId": "3", "movieId": 7, "action": "like", "time": 1}', b'{"userId": 3, "movieId": 7, "action": "like", "time": "noon"}', b'{"userId": 3, "movieId": 7, "action": "like"}',
                                  b'{"userId": null, "movieId": 7, "action": "like", "time": 1}', b'{"userId": 3, "movieId": 7, "action": ["like"], "time": 1}', b"[" * 100_000,
                                  b'{"userId": 3, "movieId": 7, "action": "like", "time": 1, "key": {}}', b'{"userId": 1e999, "movieId": 7, "action": "like", "time": 1}'])
def test_lines_that_make_no_sense_are_skipped(tmp_path, line):
    log = make_log(tmp_path)
    log.add(Feedback(1, 1, "like", 10))
    with log.file.open("ab") as file:
        file.write(line + b"\n")
    log.add(Feedback(1, 2, "like", 20))
    assert log.taste(1) == UserFeedback({1: 10, 2: 20}) == make_log(tmp_path).taste(1) and log.skipped == 1 and log.problems[0].startswith("line 2: ")


def test_feedback_survives_new_indices(tmp_path):
    """The dataset grows, and everybody gets another index: what counts are the dataset's own ids."""
    make_log(tmp_path).add(Feedback(4, 6, "like", 100))
    log = FeedbackLog(tmp_path / "ui_feedback.jsonl", np.sort(np.append(USERS, 1)), np.sort(np.append(MOVIES, [1, 2])))
    assert log.taste(5) == UserFeedback({8: 100}) and log.taste(4) == UserFeedback()
    log = FeedbackLog(tmp_path / "ui_feedback.jsonl", USERS, MOVIES[7:])
    assert log.taste(4) == UserFeedback() and log.skipped == 1


def test_ids_may_be_text(tmp_path):
    users = np.array(["ann", "bob"], dtype=object)
    FeedbackLog(tmp_path / "log", users, MOVIES).add(Feedback(1, 3, "dislike", 5))
    assert FeedbackLog(tmp_path / "log", users, MOVIES).taste(1) == UserFeedback(dislikes={3: 5})


def test_another_file_by_that_name(tmp_path):
    log = make_log(tmp_path)
    log.add(Feedback(1, 1, "like", 10))
    log.file.rename(tmp_path / "old")
    log.refresh()
    assert log.taste(1) == UserFeedback()
    log.add(Feedback(2, 2, "like", 20))
    assert log.taste(1) == UserFeedback() and log.taste(2) == UserFeedback({2: 20})
    (tmp_path / "old").replace(log.file)
    log.refresh()
    assert log.taste(1) == UserFeedback({1: 10}) and log.taste(2) == UserFeedback()


def test_it_is_on_the_disk_before_anybody_hears_of_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(feedback.os, "fsync", lambda file: synced.append(os.fstat(file)))
    log = make_log(tmp_path)
    log.add(Feedback(1, 1, "like", 10))
    assert [(entry.st_ino, entry.st_size) for entry in synced[:1]] == [(log.file.stat().st_ino, log.file.stat().st_size)]
    assert synced[1].st_ino == tmp_path.stat().st_ino, "and so is the name of a new file"
    log.add(Feedback(1, 2, "like", 10))
    assert len(synced) == 3 and synced[2].st_size == log.file.stat().st_size


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    log = make_log(tmp_path)
    log.add(Feedback(1, 1, "like", 10))
    before, write = log.file.read_bytes(), os.write

    def full(file, data):
        if len(data) > 20:
            return write(file, data[:-20])  # all that there was room for
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(feedback.os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            log.add(Feedback(1, 2, "like", 20))
    assert log.file.read_bytes() == before and log.taste(1) == UserFeedback({1: 10})
    log.add(Feedback(1, 2, "like", 20))
    assert log.skipped == 0 and log.taste(1).likes == {1: 10, 2: 20}


def test_sixteen_threads_lose_nothing(tmp_path):
    log = make_log(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: log.add(Feedback(n % 16, n // 16, "like", n, f"key {n}")), range(16 * 20)))
    assert log.lines == 320 and log.skipped == 0 and all(set(log.taste(user).likes) == set(range(20)) for user in range(16))
    assert len({json.loads(line)["key"] for line in log.file.read_text().splitlines()}) == 320


def test_readers_never_lose_sight_of_what_was_said(tmp_path):
    """One thread writes, others read: whoever has once been told of a like sees it ever after."""
    log, stop, wrong = make_log(tmp_path), threading.Event(), []
    log.add(Feedback(0, 0, "like", 1))

    def read():
        while not stop.is_set():
            log.refresh()
            if 0 not in log.taste(0).likes:
                wrong.append(log.taste(0))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for n in range(300):
        log.add(Feedback(1, n % 50, "save", n))
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == [] and log.lines == 301


WRITER = """
import sys
import numpy as np
from movierec.feedback import Feedback, FeedbackLog

log = FeedbackLog(sys.argv[1], np.arange(100) * 3, np.arange(50) * 7)
user, count = int(sys.argv[2]), int(sys.argv[3])
for n in range(count):
    log.add(Feedback(user, n % 50, "save", n, f"{user}-{n}"))
    print(n, flush=True)
"""


def writer(file, user, count):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(file), str(user), str(count)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_sixteen_processes_lose_nothing(tmp_path):
    file = tmp_path / "ui_feedback.jsonl"
    writers = [writer(file, user, 20) for user in range(16)]
    assert [process.communicate(timeout=120)[0].split() for process in writers] == [[str(n) for n in range(20)]] * 16
    log = FeedbackLog(file, USERS, MOVIES)
    assert log.lines == 320 and log.skipped == 0 and all(set(log.taste(user).saves) == set(range(20)) for user in range(16))


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Writers are killed at any moment, while others write on."""
    file, random_ = tmp_path / "ui_feedback.jsonl", random.Random(0)
    for turn in range(4):
        writers = [writer(file, 4 * turn + one, 100_000) for one in range(4)]
        heard = [[process.stdout.readline() for _ in range(random_.randrange(1, 40))] for process in writers]
        for process in writers:
            os.kill(process.pid, signal.SIGKILL)
        heard = [lines + process.communicate()[0].splitlines() for lines, process in zip(heard, writers, strict=True)]
        log = FeedbackLog(file, USERS, MOVIES)
        kept = {json.loads(line)["key"] for line in file.read_text().splitlines() if line.endswith("}")}
        for one, lines in enumerate(heard):
            assert {f"{4 * turn + one}-{line.strip()}" for line in lines if line.strip()} <= kept
    log.add(Feedback(99, 1, "like", 1))
    assert FeedbackLog(file, USERS, MOVIES).taste(99) == UserFeedback({1: 1}), "and the log goes on"


@pytest.fixture(scope="module")
def live(tiny_run, tmp_path_factory):
    return LiveService(RecommenderService(tiny_run[0]), tmp_path_factory.mktemp("live") / "ui_feedback.jsonl")


def test_a_live_service_hears_everybody(live):
    plain = live.service.recommend(11, 10)
    assert live.recommend(11, 10) == plain
    first = plain.items[0].item_idx
    elsewhere = LiveService(live.service, live.log.file)  # another process
    elsewhere.give(11, first, "dislike", 1)
    assert first not in {pick.item_idx for pick in live.recommend(11, 10).items}
    assert live.debug(11, 3)["dislikes"] == [first]
    live.give(11, first, "undislike", 2)
    assert elsewhere.recommend(11, 10) == plain


def test_a_live_service_knows_whom_it_talks_to(live):
    for wrong in ((80, 1, "like"), (1, 120, "like"), (1, 1, "love"), (-1, 1, "like"), (1, -1, "like")):
        with pytest.raises(NotFoundError, match="there is no "):
            live.give(*wrong, 1)
    with pytest.raises(NotFoundError, match="user_idx 80"):
        live.recommend(80)
