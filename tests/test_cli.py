"""The command as a person types it: tables that can be read, errors in one sentence, nothing half-written."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
import rich.progress
from helpers import TINY, copy_of_run, write_archive
from rich.console import Console

from movierec import cli, terminal
from movierec.artifacts import Artifact, file_lock, paths, write_json
from movierec.config import SOURCES, load_settings
from movierec.data.tables import query

COMMAND = Path(sys.executable).with_name("movierec")


def movierec(*arguments, cwd=None, **environment):
    """Run the real command; returns the finished process."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "FORCE_COLOR" and not name.startswith("MOVIEREC_")
    }
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=kept | {"COLUMNS": "200"} | environment,
    )


@pytest.fixture
def run_here(monkeypatch, capsys):
    """A function that runs a command in this process, which saves the second or two that a process of its own takes."""

    def run(*arguments):
        console = Console(file=io.StringIO(), highlight=False, soft_wrap=True, width=200)
        monkeypatch.setattr(sys, "argv", ["movierec", *map(str, arguments)])
        monkeypatch.setattr(terminal.STATUS, "values", {})
        for module in (cli, terminal):
            monkeypatch.setattr(module, "out", console)
        capsys.readouterr()
        code = cli.run_cli([str(argument) for argument in arguments])
        return subprocess.CompletedProcess(arguments, code, console.file.getvalue(), capsys.readouterr().err)

    return run


def options(settings):
    return (
        "--dataset",
        settings.dataset,
        "--data-dir",
        settings.data_dir,
        "--reports-dir",
        settings.reports_dir,
    )


def fails(done, *parts):
    """One sentence on standard error, nothing on standard output, a non-zero exit."""
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr
    return True


def test_recommend(tiny_run, run_here):
    settings, _ = tiny_run
    done = run_here("recommend", "--user-id", 7, "-k", 3, "--system", "hybrid", *options(settings))
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert (
        lines[0] == "tiny, user 7: hybrid" and len(lines) == 6 and "The Film" in lines[2] and "why" in lines[1]
        and lines[-1].startswith("watched: how likely")
    )
    debug = run_here(
        "recommend", "--user-id", 7, "-k", 3, "--debug", "--system", "ranked_v2", *options(settings)
    ).stdout
    assert "rank_als" in debug and "user_item_genre_aff_decay" in debug
    debug = run_here(
        "recommend", "--user-id", 7, "-k", 3, "--debug", "--system", "ranked_v3", *options(settings)
    ).stdout
    assert "rank_als" in debug and debug.count(" contribution ") == 15
    assert (
        "chosen under global-time" in run_here("recommend", "--user-id", 7, "-k", 3, *options(settings)).stdout
    )


def test_exports(tiny_run, tmp_path, run_here):
    settings, _ = tiny_run
    done = run_here(
        "export-split", *options(settings), "--protocol", "leave-last-out", "--out", tmp_path / "new" / "split"
    )
    assert done.returncode == 0 and "80 test events; 80 test users\n" in done.stdout
    assert {file.name for file in (tmp_path / "new" / "split").iterdir()} == {
        "train.parquet",
        "validation.parquet",
        "test.parquet",
        "test_users.parquet",
    }
    file = tmp_path / "lists" / "als.parquet"
    done = run_here(
        "export-recommendations",
        *options(settings),
        "--protocol",
        "leave-last-out",
        "--system",
        "als",
        "-k",
        5,
        "--out",
        file,
    )
    assert done.returncode == 0 and "400 rows" in done.stdout and len(query("SELECT * FROM t", t=file)) == 400


def test_exports_of_a_sample_say_so(sampled_run, tmp_path, run_here):
    settings, _ = sampled_run
    common = (*options(settings), "--protocol", "leave-last-out")
    done = run_here("export-split", *common, "--out", tmp_path / "split")
    assert "80 test events; 8 test users (a random sample of 8 of 80 users)" in done.stdout
    done = run_here("export-recommendations", *common, "--system", "als", "-k", 5, "--out", tmp_path / "als.parquet")
    assert "als.parquet: 40 rows, a random sample of 8 of 80 users" in done.stdout
    done = run_here("simulate", "--a", "als", "--b", "popularity", "-k", 5, "--trials", 2,
                    *options(copy_of_run(settings, tmp_path)), "--protocol", "leave-last-out")
    assert "test users from a random sample of 8 of 80 users" in done.stdout, done.stderr


def test_all_users_lifts_the_limit(sampled_run, tmp_path, run_here):
    """`compare` keeps to the sample of the run, unless asked for all users; from then on, it reads those."""
    settings = copy_of_run(sampled_run[0], tmp_path)
    asked = ("compare", *options(settings), "--protocol", "leave-last-out", "--systems", "als,ease")
    done = run_here(*asked, "--out", tmp_path / "t.md")
    assert done.returncode == 0, done.stderr
    assert "users from a random sample of 8 of 80 users" in done.stdout and "✓" not in done.stdout
    assert "users from a random sample of 8 of 80 users." in (tmp_path / "t.md").read_text()
    lifted, again = run_here(*asked, "--all-users"), run_here(*asked)
    assert "✓ leave-last-out: test lists" in lifted.stdout and "✓" not in again.stdout
    for done in (lifted, again):
        assert done.returncode == 0 and "sample of" not in done.stdout
    saved = [json.loads(file.read_text()) for file in sorted(paths(settings).runs.glob("*/run.json"))]
    names = [run["run"] for run in saved if run["protocol"] == "leave-last-out"]
    listed = run_here("runs", "--reports-dir", settings.reports_dir).stdout
    assert "(sample of 80)" in listed and "evaluation_users=8" in listed
    both = run_here("runs", *names, "--reports-dir", settings.reports_dir).stdout
    assert "evaluated on different users of one test set" in both and "; a random sample of 8 of 80 users" in both


def test_run_says_that_it_evaluated_a_sample(sampled_run, tmp_path, run_here):
    settings = copy_of_run(sampled_run[0], tmp_path)
    given = [f"--set={name}={json.dumps(value)}" for name, value in (TINY | {"evaluation_users": 8}).items()]
    done = run_here("run", *options(settings), "--protocol", "global-time", *given)
    assert done.returncode == 0, done.stderr
    assert "✓" not in done.stdout
    assert "users from a random sample of 8 of" in done.stdout and "--all-users evaluates all of them" in done.stdout


def test_ablate_and_tune(tiny_run, tmp_path, run_here):
    settings = copy_of_run(tiny_run[0], tmp_path)
    done = run_here("ablate", *options(settings), "--protocol", "global-time")
    assert done.returncode == 0, done.stderr
    for text in (
        "without als",
        "without similarity to recent items",
        "only retrieval scores",
        "ranked_v2 with source scores",
        "training users",
    ):
        assert text in done.stdout
    folder = paths(settings).results
    tables = {
        name: (folder / f"global-time-{name}.csv").read_text()
        for name in ("sources", "features", "learning-curve")
    }
    assert all(table.count("\n") > 3 for table in tables.values()) and tables["features"].startswith(
        '"validation, n = '
    )
    assert not list(folder.glob(".*.tmp"))
    done = run_here("tune", *options(settings), "--protocol", "global-time", "--context", "returning")
    assert done.returncode == 0, done.stderr
    given = tomllib.loads(done.stdout)["hybrid"]["weights"]["returning"]
    assert tuple(given) == SOURCES and max(given.values()) > 0
    load_settings(hybrid={"weights": {"returning": given}})
    fails(
        run_here("tune", *options(settings), "--context", "retuning"),
        "no user context retuning (did you mean returning?)",
    )
    fails(run_here("ablate", *options(settings), "--protocol", "all"), "no protocol all")


@pytest.mark.extra
@pytest.mark.skipif(find_spec("optuna") is None, reason="the extra tune (Optuna) isn't installed: make neural")
def test_tune_searches_and_writes_settings_once(tiny_run, tmp_path, run_here):
    settings = copy_of_run(tiny_run[0], tmp_path)
    given = [f"--set={name}={json.dumps(value)}" for name, value in TINY.items()]
    file = tmp_path / "movierec.toml"
    asked = ("tune", *options(settings), *given, "--protocol", "leave-last-out", "--what", "fusion", "--out", file)
    done = run_here(*asked, "--trials", "2")
    assert done.returncode == 0, done.stderr
    assert "fusion " in done.stdout and "optimistic" in done.stdout and "[+" in done.stdout
    result = json.loads((paths(settings).results / "leave-last-out-search.json").read_text())
    assert result["written"] == file.exists() and "test" not in result
    file.write_text("seed = 7\n")
    fails(run_here(*asked, "--trials", "3"), "movierec.toml exists and is never overwritten")
    assert file.read_text() == "seed = 7\n"


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (("--budget", "0"), "a budget of 0 minutes is no time"),
        (("--budget", "-3"), "a budget of -3 minutes is no time"),
        (("--trials", "0"), "0 trials are none"),
        (("--protocol", "global-tim"), "global-tim can't be tuned under (did you mean global-time?)"),
        (("--what", "rankr"), "there is no stage rankr to tune (did you mean ranker?)"),
        (("--out", "/no-such-folder/a.toml"), "there is no folder /no-such-folder"),
    ],
)
def test_a_wrong_search_is_a_sentence(tiny_run, run_here, tmp_path, wrong, sentence):
    fails(run_here("tune", *options(tiny_run[0]), "--out", tmp_path / "a.toml", *wrong), sentence)


def test_a_search_without_the_extra_says_what_to_install(tiny_run, run_here, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)  # makes the import fail
    done = run_here("tune", *options(tiny_run[0]), "--out", tmp_path / "a.toml")
    fails(done, "pip install 'movierec[tune]'")


def test_synthesize_writes_plays(tmp_path, run_here):
    done = run_here("synthesize", "--like", "plays", "--scale", "0.02", "--out", tmp_path / "plays.csv")
    assert "40 listeners" in done.stdout
    assert (tmp_path / "plays.csv").read_text().startswith("user_id,item_id,timestamp")


def test_backtest_of_sources(tiny_run, tmp_path, run_here):
    settings = copy_of_run(tiny_run[0], tmp_path)
    done = run_here("backtest", "--sources", *options(settings), "--cuts", "2")
    assert done.returncode == 0, done.stderr
    assert "With all sources: hybrid" in done.stdout and "linear_ar" in done.stdout
    assert (paths(settings).results / "backtest-sources.json").is_file()
    assert not (paths(settings).results / "backtest.json").exists()


def test_diff(tiny_run, tmp_path, run_here):
    settings = copy_of_run(tiny_run[0], tmp_path)
    asked = ("diff", *options(settings), "--protocol", "leave-last-out")
    done = run_here(*asked, "--a", "popularity", "--b", "ranked_v3")
    assert done.returncode == 0, done.stderr
    assert "Most for ranked_v3" in done.stdout and " ✓" in done.stdout and "2 to 4 relevant" not in done.stdout
    written = json.loads((paths(settings).results / "leave-last-out-users.json").read_text())
    assert written["all"]["n_users"] == tiny_run[1]["leave-last-out"]["systems"]["als"]["n_users"]
    assert "User " not in run_here(*asked, "--a", "als", "--b", "ease", "--examples", "0").stdout
    fails(run_here(*asked, "--a", "als", "--b", "als"), "als is named twice")
    fails(run_here(*asked, "--a", "als", "--b", "sasrec"), "was run without sasrec")
    fails(run_here("diff", *options(settings), "--a", "als", "--b", "ease", "--protocol", "global-next"), "one by one")
    fails(run_here("diff", *options(settings), "--a", "als", "--b", "ease", "--protocol", "gobal"), "no protocol gobal")


def test_a_comparison_as_a_page(tiny_run, tmp_path, run_here):
    settings = tiny_run[0]
    target = tmp_path / "comparison.html"
    done = run_here("compare", *options(settings), "--protocol", "global-time", "--out", target)
    assert done.returncode == 0, done.stderr
    page = target.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "searchPanes" in page and page.count("<svg") >= 2
    fails(run_here("compare", *options(settings), "--out", tmp_path / "none" / "x.html" / "y.pdf"), ".html")


def test_backtest(tiny_run, tmp_path, run_here):
    settings = copy_of_run(tiny_run[0], tmp_path)
    done = run_here("backtest", *options(settings), "--cuts", "2")
    assert done.returncode == 0, done.stderr
    assert "tiny, 2 cuts: ndcg@" in done.stdout and "ranked_v3" in done.stdout and "1 window" in done.stdout
    assert (paths(settings).results / "backtest.json").is_file()
    fails(run_here("backtest", *options(settings), "--cuts", "1"), "--cuts")
    fails(run_here("backtest", "--dataset", "tyni", "--data-dir", settings.data_dir), "no dataset tyni")


def test_predictions_one_by_one(tiny_run, tmp_path, run_here):
    settings = copy_of_run(tiny_run[0], tmp_path, evaluation_users=20)
    sampled = (*options(settings), "--set", "evaluation_users=20")
    done = run_here("compare", *sampled, "--protocol", "global-next", "--relevant", "all")
    assert done.returncode == 0, done.stderr
    assert "20 predictions for" in done.stdout and ", a random sample of 20 of" in done.stdout
    done = run_here("export-split", "--protocol", "global-next", "--out", tmp_path / "split", *options(settings))
    assert done.returncode == 0, done.stderr
    assert "20 test predictions (a random sample of 20 of" in done.stdout
    fails(run_here("recommend", "--user-id", "1", "--protocol", "global-next", *options(settings)), "only measures")


def test_info(tiny_run, tmp_path, run_here):
    settings, _ = tiny_run
    done = run_here("info", "--data-dir", settings.data_dir, "--reports-dir", settings.reports_dir)
    assert (
        done.returncode == 0
        and "tiny" in done.stdout
        and "global-time: rankers" in done.stdout
        and "scikit-learn" in done.stdout
    )
    assert "No dataset has been run yet" in run_here("info", "--data-dir", tmp_path).stdout


def test_errors_are_one_sentence(tiny_run, tmp_path, run_here):
    settings, _ = tiny_run
    fails(run_here("recommend", "--user-id", "seven", *options(settings)), "no user seven", "1 to 80")
    fails(run_here("recommend", "--user-id", 4711, *options(settings)), "no user 4711", "1 to 80")
    fails(
        run_here("recommend", "--user-id", 7, "--system", "best", *options(settings)),
        "no system best",
        "ranked_v2",
    )
    fails(
        run_here("recommend", "--user-id", 7, "--dataset", "tinny", "--data-dir", settings.data_dir),
        "no dataset tinny",
        "did you mean tiny?",
    )
    fails(
        run_here("recommend", "--user-id", 7, "--dataset", "ml-1m", "--data-dir", tmp_path),
        "ml-1m hasn't been run yet",
    )
    elsewhere = ("--data-dir", tmp_path, "--reports-dir", tmp_path / "reports")
    offline = (
        "--set",
        "download.urls=http://127.0.0.1:1",
        "--set",
        "download.backoff=0",
        "--data-dir",
        tmp_path,
    )
    fails(
        run_here("run", "--dataset", "ml-1m", *offline, "--reports-dir", tmp_path / "reports"),
        "ml-1m can't be downloaded",
        "ConnectError",
        "ml-1m.zip",
        "--source",
        "(log: ",
    )
    fails(run_here("download", "ml-1m", *offline), "ml-1m can't be downloaded", "ConnectError")
    fails(run_here("download", "ml-1mm", *offline), "did you mean ml-1m?")
    fails(run_here("run", "--dataset", "nonsense", *elsewhere), "no dataset nonsense")
    assert not (tmp_path / "reports" / "logs" / "nonsense").exists(), "a name that doesn't exist leaves nothing"
    fails(run_here("run", "--source", tmp_path / "absent.zip", *elsewhere), "absent.zip doesn't exist")
    fails(run_here("run", "--protocol", "random", "--data-dir", tmp_path), "protocol = 'random'")
    fails(run_here("run", "--set", "als.factors=0", "--data-dir", tmp_path), "als.factors = 0")
    fails(run_here("run", "--set", "als.factors", "--data-dir", tmp_path), "name=value")
    fails(
        run_here("run", "--set", "als=3", "--set", "als.factors=2", "--data-dir", tmp_path),
        "als is a single value",
    )
    fails(run_here("run", "--set", "als=3", "--data-dir", tmp_path), "als = 3")
    fails(run_here("run", "--source", tmp_path, "--ratings", tmp_path / "r.csv"), "give one of them")
    fails(run_here("run", "--columns", "user=x"), "they need --ratings")
    fails(run_here("run", "--on-bad-rows", "ignore"), "on_bad_rows = 'ignore'")
    fails(run_here("run", "--memory-limit", "plenty"), "memory_limit = 'plenty'")
    fails(run_here("run", "--memory-limit", "10MB"), "memory_limit = '10MB'")
    fails(run_here("run", "--ratings", tmp_path / "r.csv", *elsewhere), "r.csv doesn't exist")
    fails(run_here("run", "--config", tmp_path / "no.toml"), "no.toml doesn't exist")
    fails(movierec("info", MOVIEREC_SEDE="1"), "MOVIEREC_SEDE (did you mean MOVIEREC_SEED?)")
    fails(
        run_here("export-split", *options(settings), "--protocol", "all", "--out", tmp_path / "s"),
        "no protocol all",
    )
    fails(
        run_here("export-split", *options(settings), "--protocol", "leave-last", "--out", tmp_path / "s"),
        "leave-last-out",
    )
    blocked = tmp_path / "blocked"
    blocked.touch()
    fails(
        run_here(
            "export-recommendations",
            *options(settings),
            "--protocol",
            "global-time",
            "--system",
            "als",
            "-k",
            5,
            "--out",
            blocked / "x.parquet",
        ),
        "blocked",
    )
    fails(run_here("run", "--data-dir", blocked, "--reports-dir", tmp_path / "reports"), "blocked")


def test_damaged_artifacts_are_one_sentence(tiny_run, tmp_path, run_here):
    settings, _ = tiny_run
    copy_of_run(settings, tmp_path)
    common = ("--dataset", "tiny", "--data-dir", tmp_path / "data", "--reports-dir", tmp_path / "reports")
    where = paths(load_settings(dataset="tiny", data_dir=tmp_path / "data", reports_dir=tmp_path / "reports"))
    file = where.rankers("global-time") / "ranked_v2" / "ranker.json"
    write_json(file, json.loads(file.read_text()) | {"features": ["item_interactions"]})
    done = run_here("recommend", "--user-id", 7, "--system", "ranked_v2", *common)
    fails(done, "was trained on the features item_interactions")
    (where.serving / "als" / "item_factors.npy").write_bytes(b"torn")
    fails(run_here("recommend", "--user-id", 7, *common), "can't be read", "movierec run")


def test_usage_errors_name_the_option(run_here):
    wrong = {
        "-k": ("recommend", "--user-id", 7, "-k", 0),
        "--user-id": ("recommend",),
        "runn": ("runn",),
        "--datset": ("run", "--datset", "x"),
    }
    for part, arguments in wrong.items():
        done = run_here(*arguments)
        assert done.returncode == 2 and fails(done, part, "--help")


def test_the_command_without_arguments_shows_its_help():
    done = movierec()
    assert done.returncode == 0 and "export-split" in done.stdout and done.stderr == ""


def test_a_run_of_your_own_files(tmp_path):
    """Text ids, no ratings, ISO times, default settings: served first, then a whole run, and a second, fast one."""
    archive = write_archive(tmp_path / "archive", n_users=60)
    rows = [line.split(",") for line in (archive / "ratings.csv").read_text().splitlines()[1:]]
    lines = [
        f"person-{user},tune {item},{datetime.fromtimestamp(int(time), UTC):%Y-%m-%dT%H:%M:%SZ}\n"
        for user, item, _, time in rows
    ]
    (tmp_path / "plays.csv").write_text("who,what,when\n" + "".join(lines))
    common = ("--data-dir", tmp_path / "data", "--reports-dir", tmp_path / "reports")
    command = ("run", "--ratings", tmp_path / "plays.csv", "--columns", "user=who,item=what,time=when", *common)
    done = movierec(*command, "--serving-only", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Ready to serve plays: " in done.stdout and "chosen on validation under global-time" in done.stdout
    assert "Note: plays hasn't been evaluated under global-time yet: `movierec run --dataset plays" in done.stdout
    assert "api --dataset plays" in done.stdout and "app --dataset plays" in done.stdout
    assert "--user-id person-1 -k 10 --dataset plays" in done.stdout
    assert "person-7" in movierec("recommend", "--dataset", "plays", "--user-id", "person-7", *common).stdout
    done = movierec(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "plays, global-time, test" in done.stdout and "ranked_v2" in done.stdout and "Next: " in done.stdout
    assert (tmp_path / "reports" / "results" / "plays" / "leave-last-out.json").is_file()
    again = movierec("run", "--dataset", "plays", *common, cwd=tmp_path)
    assert again.returncode == 0 and "✓" not in again.stdout and again.stdout.count("up to date") == 20
    served = movierec("run", "--dataset", "plays", "--serving-only", *common, cwd=tmp_path)
    assert "✓" not in served.stdout and "Ready to serve plays" in served.stdout and "Note" not in served.stdout
    next_command = next(line for line in again.stdout.splitlines() if line.startswith("Next: "))
    assert "--user-id person-1 -k 10 --dataset plays" in next_command
    done = movierec("recommend", "--dataset", "plays", "--user-id", "person-7", "-k", 3, *common)
    assert done.returncode == 0 and "tune " in done.stdout and "person-7" in done.stdout, done.stderr
    assert "your own" in movierec("datasets", "--data-dir", tmp_path / "data").stdout


STUCK = """
import ctypes
import signal
import sys
import time
from pathlib import Path
from movierec import cli
from movierec.retrieval import linear


def fit(self, interactions):
    Path(sys.argv[-1]).joinpath("inside").touch()
    {call}


linear.EASE.fit = fit
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup it would be ignored
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cli.main()
"""
HOLDS_THE_LOCK = (
    "ctypes.PyDLL(None).sleep(100)"  # as LAPACK by SciPy: no instruction of Python runs meanwhile, in no thread
)
LETS_GO = "time.sleep(100)"


def stuck(folder, call):
    """A run that is stuck for 100 seconds while it fits EASE: process, arguments, the worker's process number."""
    script = folder / "stuck.py"
    script.write_text(STUCK.format(call=call))
    (folder / "inside").unlink(missing_ok=True)
    arguments = [
        "run",
        "--source",
        folder / "movies",
        "--protocol",
        "global-time",
        "--data-dir",
        folder / "data",
        "--reports-dir",
        folder,
    ]
    process = subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (folder / "inside").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    (temporary,) = folder.rglob(".tuning.*.tmp")
    return process, arguments, int(temporary.name.split(".")[2])


def left(folder):
    return [path for path in folder.rglob(".*tmp") if path.is_dir()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_stop_signal_ends_any_native_call_and_the_next_run_continues(tmp_path):
    write_archive(tmp_path / "movies", n_users=40)
    work = paths(load_settings(dataset="movies", data_dir=tmp_path / "data", reports_dir=tmp_path)).sources(
        "global-time", "tuning"
    )
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process, arguments, _ = stuck(tmp_path, HOLDS_THE_LOCK)
        process.send_signal(number)
        _, said = process.communicate(timeout=50)  # the call lasts twice as long
        assert process.returncode == code and said.count("\n") == 1
        assert (
            said.startswith('Stopped while at "global-time: sources for tuning: fitting ease"')
            and " run --source" in said
        )
        assert not left(tmp_path)
        with file_lock(work).acquire(timeout=0):  # it is free
            pass
        log = sorted((tmp_path / "logs" / "movies").iterdir())[-1]
        last = json.loads(log.read_text().splitlines()[-1])
        assert last["event"] == "interrupted" and last["signal"] == number.name and log.name in said
    process, _, worker = stuck(tmp_path, HOLDS_THE_LOCK)
    os.kill(worker, signal.SIGKILL)  # as a system does that is out of memory
    _, said = process.communicate(timeout=50)
    assert (
        process.returncode == 137
        and said.startswith("Error: SIGKILL from outside")
        and said.count("\n") == 1
        and not left(tmp_path)
    )
    done = movierec(*arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all("up to date" in line for line in lines[:3]) and lines[3].startswith(
        "✓ global-time: sources for tuning"
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_the_worker_ends_with_its_parent(tmp_path):
    write_archive(tmp_path / "movies", n_users=40)
    process, _, _ = stuck(tmp_path, LETS_GO)
    process.kill()
    process.communicate()
    with file_lock(
        paths(load_settings(dataset="movies", data_dir=tmp_path / "data", reports_dir=tmp_path)).sources(
            "global-time", "tuning"
        )
    ).acquire(timeout=50):
        pass  # who held it is gone


def test_an_error_names_the_log_and_the_log_the_error(tmp_path):
    archive = write_archive(tmp_path / "movies", n_users=40)
    (archive / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,eleven,0\n")
    done = movierec(
        "run", "--source", archive, "--data-dir", tmp_path / "data", "--reports-dir", tmp_path, cwd=tmp_path
    )
    (log,) = (tmp_path / "logs" / "movies").iterdir()
    assert fails(done, "eleven", f"(log: {log.relative_to(tmp_path)})")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["run begins", "stage begins", "error"]
    assert (
        events[0]["command"][1:3] == ["run", "--source"]
        and "eleven" in events[-1]["error"]
        and events[-1]["stage"] == "ingest"
    )


def test_a_terminal_shows_count_rate_and_time_left(monkeypatch):
    monkeypatch.setattr(
        terminal, "out", Console(file=io.StringIO(), force_terminal=True, width=150, highlight=False)
    )
    progress = terminal.TerminalProgress()
    with progress.stage("test lists") as running:
        running.report("asking als", 0, 1_000, "users")
        running.report("asking als", 250, 1_000, "users")
        running.report("writing")
        running.done(Artifact(Path("lists"), {"contents": {"rows": {"lists": 5}}}, built=True))
    seen = terminal.out.file.getvalue()
    assert (
        "test lists: asking als … " in seen
        and " of 1,000 users" in seen
        and "test lists: writing … " in seen
        and "━" in seen
    )
    assert seen.rstrip().splitlines()[-1].count("5 lists") == 1 and "✓" in seen

    now = [0.0]
    bars = rich.progress.Progress(get_time=lambda: now[0])
    task = bars.add_task("asking als", total=1_000, unit="users")
    for now[0], done in ((1.0, 200), (2.0, 400)):
        bars.update(task, completed=done)
    assert terminal.PaceColumn().render(bars.tasks[0]).plain == "400 of 1,000 users, 200 users/s, 0:03 left"


def test_paths_module_agrees_with_the_command(tiny_run):
    settings, _ = tiny_run
    assert paths(settings).results == Path(settings.reports_dir) / "results" / "tiny"


def test_compare(tiny_run, tmp_path, run_here):
    """Nothing is rebuilt, the table marks significance, and the same table can be written to a file."""
    settings, results = copy_of_run(tiny_run[0], tmp_path), tiny_run[1]
    for name in ("t.md", "t.csv"):
        done = run_here(
            "compare",
            "--protocol",
            "leave-last-out",
            "--systems",
            "als, hybrid,ranked_v3",
            "--out",
            tmp_path / name,
            *options(settings),
        )
        assert done.returncode == 0, done.stderr
        assert (
            "✓" not in done.stdout
            and "up to date" in done.stdout
            and "≈" in done.stdout
            and "popularity" not in done.stdout
        )
    assert (tmp_path / "t.md").read_text().startswith("| system | users | recall@5 | ndcg@5 |") and len(
        (tmp_path / "t.md").read_text().splitlines()
    ) == 5
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert len(rows) == 4 and float(rows[1].split(",")[2]) == pytest.approx(
        results["leave-last-out"]["systems"]["als"]["recall@5"], abs=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--systems", "als,eese"), ("did you mean ease",)),
        (("--ties", "random"), ("--ties random is for leave-last-out and global-next",)),
        (("--ties", "rndom"), ("file or random",)),
        (("--relevant", "everything"), ("relevant", "liked")),
        (("--protocol", "all"), ("one protocol at a time",)),
        (("--set", "protocol=all"), ("one protocol at a time",)),
        (("--protocol", "global"), ("protocol",)),
        (("--out", "t.txt"), (".csv, .md or .html",)),
        (("--systems", "sasrec"), ("was run without sasrec",)),
        (("--dataset", "nowhere"), ("nowhere",)),
    ],
)
def test_compare_rejects_wrong_options(tiny_run, arguments, parts, run_here):
    settings, _ = tiny_run
    fails(run_here("compare", *options(settings), *arguments), *parts)


def test_runs(tiny_run, tmp_path, run_here):
    settings, _ = tiny_run
    where = ("--reports-dir", settings.reports_dir)
    listed = run_here("runs", *where)
    assert listed.returncode == 0 and "als.factors=8" in listed.stdout
    names = [line.split()[0] for line in listed.stdout.splitlines()[1:] if line[:8].strip()]
    both = run_here("runs", *where, *names[:2], "--metric", "recall@5")
    assert both.returncode == 0 and "ranked_v3" in both.stdout and both.stdout.startswith("recall@5")
    assert "No run is kept" in run_here("runs", "--reports-dir", tmp_path).stdout
    fails(run_here("runs", *where, "zzzz"), "no run is called zzzz")
    fails(run_here("runs", *where, names[0], names[0]), "named twice")
    fails(run_here("runs", *where, names[0], "--metric", "ndcg"), "no metric ndcg")


def test_simulate(tiny_run, tmp_path, run_here):
    settings = copy_of_run(tiny_run[0], tmp_path)
    done = run_here(
        "simulate",
        "--a",
        "popularity",
        "--b",
        "ranked_v3",
        "--protocol",
        "leave-last-out",
        "-k",
        5,
        "--trials",
        20,
        *options(settings),
    )
    assert (
        done.returncode == 0
        and done.stdout.startswith("A simulation, not evidence")
        and "Users for 80 % power" in done.stdout
    )
    written = json.loads((paths(settings).results / "leave-last-out-simulation.json").read_text())
    assert (
        written["simulation"] is True
        and written["systems"] == {"a": "popularity", "b": "ranked_v3"}
        and written["k"] == 5
    )
    fails(run_here("simulate", "--a", "popularity", "--b", "v3", *options(settings)), "there is no system v3")
    fails(
        run_here("simulate", "--a", "popularity", "--b", "als", "--patience", 2, *options(settings)), "patience"
    )
    fails(run_here("simulate", "--a", "popularity", "--b", "als", "-k", 500, *options(settings)), "at most 20")


# one person's own ratings

LIST = "Film 7, The (1957); 4.5\nThe Film 8 (1958)\nThe Film 9 (1960); 5\nThe Film 500 (1990)\n"


@pytest.fixture
def tables(tiny_run, tmp_path):
    """Options for the tables of the tiny run, with a feedback folder of its own; and a list of titles."""
    settings, _ = tiny_run
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "processed").symlink_to(settings.data_dir / "processed", target_is_directory=True)
    (tmp_path / "seen.txt").write_text(LIST)
    return ("--dataset", "tiny", "--data-dir", tmp_path / "data"), tmp_path / "seen.txt"


def test_importing_reports_and_tells_the_next_command(run_here, tables):
    where, file = tables
    done = run_here("import", file, "--as", "Zoë / [red]home", *where)
    assert done.returncode == 0, done.stderr
    for part in ("movies: 4, rated: 2", "2 exact, 1 fuzzy, 0 ambiguous, 1 unmatched", "The Film 9 (1959) [9]",
                 "Fuzzy matches left out: 1", "--yes", "The Film 500 (1990)", "2 added, 0 changed",
                 "recommend --user-id 'Zoë / [red]home' --dataset tiny --data-dir"):
        assert part in done.stdout
    again = run_here("import", file, "--as", "Zoë / [red]home", *where)
    assert "nothing changed, this file was imported before; movies in all: 2, rated: 1" in again.stdout
    more = run_here("import", file, "--as", "Zoë / [red]home", "--yes", *where)
    assert "1 added, 0 changed; movies in all: 3, rated: 2" in more.stdout


def test_fuzzy_matches_are_asked_for_at_a_terminal(run_here, tables, monkeypatch):
    where, file = tables
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, movies in (("n", 2), ("y", 3)):
        monkeypatch.setattr(cli.typer, "confirm", lambda text, answer=answer: answer == "y")
        assert f"movies in all: {movies}" in run_here("import", file, "--as", "Zoë", *where).stdout

    def interrupt(text):
        raise cli.typer.Abort

    monkeypatch.setattr(cli.typer, "confirm", interrupt)
    done = run_here("import", file, "--as", "Bob", *where)
    assert done.returncode == 130 and "Bob" not in run_here("users", *where).stdout


def test_imported_users_are_listed_recommended_to_and_removed(run_here, tables, tiny_run):
    where, file = tables
    assert "No user was imported yet" in run_here("users", *where).stdout
    run_here("import", file, "--as", "Zoë / [red]home", *where)
    for options_of_users in (where, where[2:]):
        listed = run_here("users", *options_of_users)
        assert "Zoë / [red]home" in listed.stdout and "tiny" in listed.stdout and "list of titles" in listed.stdout
    reports = ("--reports-dir", tiny_run[0].reports_dir)
    done = run_here("recommend", "--user-id", "Zoë / [red]home", "-k", "3", "--debug", *where, *reports)
    assert done.returncode == 0 and "tiny, user Zoë / [red]home" in done.stdout and "score_als" in done.stdout
    assert "The Film 7 " not in done.stdout
    assert fails(run_here("users", "--remove", "Zoe", *where), "no user Zoe was imported for tiny")
    assert "removed from tiny (movies: 2)" in run_here("users", "--remove", "Zoë / [red]home", *where).stdout
    assert fails(run_here("recommend", "--user-id", "Zoë / [red]home", *where, *reports), "no user of that name")


def test_imports_that_are_refused(run_here, tables, tmp_path):
    where, file = tables
    dates = tmp_path / "NetflixViewingHistory.csv"
    dates.write_text('Title,Date\n"The Film 7","1/6/24"\n')
    assert fails(run_here("import", file, "--as", "7", *where), "7 is a userId of tiny")
    assert fails(run_here("import", file, "--as", "", *where), "can't be the name of a user")
    assert fails(run_here("import", tmp_path / "no.csv", "--as", "Zoë", *where), "there is no file")
    assert fails(run_here("import", dates, "--as", "Zoë", *where), "01 June 2024 or 06 January 2024", "--time-format")
    assert fails(run_here("import", dates, "--as", "Zoë", "--time-format", "%d.%m", *where), "1/6/24 is not a time")
    assert run_here("import", dates, "--as", "Zoë", "--time-format", "%d/%m/%y", *where).returncode == 0
    nothing = ("--dataset", "nowhere", *where[2:])
    assert fails(run_here("import", file, "--as", "Zoë", *nothing), "nowhere hasn't been read yet")
    (tmp_path / "other.txt").write_text("Heat (1995)\n")
    assert fails(run_here("import", tmp_path / "other.txt", "--as", "Zoë", *where), "no movie of other.txt was found")


def test_inspect_ingest_and_stop(tmp_path, run_here):
    (tmp_path / "Meine Liste.csv").write_text("who;what\nann;Heat\nbob;Heat\n")
    file = tmp_path / "Meine Liste.csv"
    named = ("--columns", "user=who,item=what")
    seen = run_here("inspect", file, *named)
    assert seen.returncode == 0 and "CSV with semicolons" in seen.stdout
    assert "2 ratings, 2 users, 1 movies" in seen.stdout
    assert f"run --ratings '{file}' --columns user=who,item=what" in seen.stdout
    fails(run_here("inspect", file), "no column userId for the user: it has who, what")
    where = ("--data-dir", tmp_path / "data", "--reports-dir", tmp_path / "reports")
    done = run_here("ingest", "--ratings", file, *named, *where)
    assert done.returncode == 0 and "Stopped after ingest" in done.stdout
    assert (tmp_path / "data" / "processed" / "Meine-Liste" / "tables" / "ratings.parquet").exists()
    fails(run_here("run", "--dataset", "Meine-Liste", "--until", "evening", *where), "no step evening")
    both = ("--serving-only", "--until", "evaluation")
    fails(run_here("run", "--dataset", "Meine-Liste", *both, *where), "--serving-only leaves out the step evaluation")
    fails(run_here("run", "--implicit", *where), "--implicit describe files of your own: they need --ratings")
