"""The SQL of the table stages is portable: every query is caught, translated to Spark's dialect, and compared."""

import ast
import functools
import itertools
import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb
import pandas as pd
import pytest
import sqlglot
from helpers import add_genome, copy_of_run, tiny_settings, write_archive
from sqlglot import ErrorLevel, exp
from sqlglot.dialects import Spark

import movierec
from movierec.artifacts import paths
from movierec.config import DataError
from movierec.data.ingest import ingest
from movierec.data.inspect import inspect
from movierec.data.interactions import build_interactions
from movierec.data.own_data import OwnData
from movierec.data.splits import PROTOCOL_RULES, build_split
from movierec.data.synthetic import synthesize
from movierec.data.tables import connect, write_table
from movierec.evaluation.runs import read_runs, run_metrics, runs_table
from movierec.facade import from_frame
from movierec.pipeline import compare, example_user, export_run_recommendations, export_run_split, run
from movierec.serving.imported_users import check_user_name
from movierec.serving.matching import load_movies
from movierec.serving.poster_download import movies_with_tmdb_id

PACKAGE = Path(movierec.__file__).parent

# What is DuckDB's own: why, then which function sends which kinds of statement. What `write_table` is given to copy,
# and the query of any other CREATE … AS, has to be portable all the same.
READING = ("a file's rows in their order, numbered by rowid, and what in them could not be read: "
           "it ends with four checked Parquet tables, where the portable part begins")
LOCAL = {
    "options are an engine's own": {"data.tables.connect": {"SET"}, "data.frames._describe_frame": {"SET"}},
    "a frame in memory becomes a file of columns whose types it decides": {
        "data.frames._describe_frame": {"DESCRIBE"}, "data.frames._write_columns": {"CREATE VIEW"}},
    "a Parquet file becomes a table: elsewhere a catalogue does that": {"data.tables.view_parquet": {"CREATE VIEW"}},
    "a file is looked at before it is read": {
        "data.formats._json_columns": {"SELECT"},
        "data.formats._read_parquet_file": {"DESCRIBE"},
        "data.inspect._first_events": {"SELECT"},
        "data.times.check_pattern": {"SELECT"},
        "data.times.set_zone": {"SELECT", "SET"},
    },
    "rows become a Parquet file: elsewhere a writer's method": {"data.tables.write_table": {"COPY"}},
    "rows become a CSV file, of synthetic data": {"data.synthetic._write_csv": {"COPY"}},
    "run.json is read as a table, to list the runs": {"evaluation.runs.read_runs": {"SELECT"}},
    READING: {
        "data.archive.create_problems_table": {"CREATE TABLE"},
        "data.archive.create_raw_table": {"CREATE TABLE"},
        "data.archive._collect_rejects": {"SELECT", "INSERT", "DROP"},
        "data.archive.reject_rows": {"SELECT", "INSERT", "DELETE"},
        "data.genres._delimiter": {"SELECT"},
        "data.own_data._create_ratings": {"CREATE TABLE", "ALTER"},
        "data.own_data._id_sql": {"SELECT"},
        "data.own_data._numbered_roles": {"SELECT"},
        "data.own_data._read_catalogue": {"CREATE TABLE"},
        "data.own_data._shifted_id_sql": {"SELECT"},
        "data.own_data.merge_repeats": {"UPDATE", "DELETE"},
        "data.scales.rating_facts": {"SELECT"},
        "data.times.date_order": {"SELECT"},
        "data.times.time_units": {"SELECT"},
        "data.own_data.OwnData.load": {"CREATE TABLE"},
        "data.validate._is_sorted_and_unique": {"SELECT"},
        "data.validate._has_duplicates": {"SELECT"},
        "data.validate._locate_by_parsing": {"UPDATE"},
        "data.validate.reject_kinds": {"SELECT"},
        "data.validate._locate_problems": {"UPDATE"},
        "data.ingest._create_empty_table": {"CREATE TABLE"},
        "data.ingest._write_tables": {"ALTER", "CREATE VIEW", "SELECT"},
    },
}

# Looked up in Spark's reference of built-in functions (spark.apache.org/docs/latest/api/sql): a name that isn't here
# has to be looked up, too.
FUNCTIONS = {
    "ARRAY", "ARRAY_DISTINCT", "ARRAY_SORT", "AVG", "BOOL_AND", "CAST", "COALESCE", "CONCAT", "COUNT", "EXPLODE",
    "FLOOR", "GREATEST", "LN", "LOG", "MAX", "MD5", "NTILE", "NULLIF", "PERCENTILE_DISC", "POWER", "ROW_NUMBER",
    "SPLIT", "SUM", "TRY_CAST", "YEAR",
}
GRAMMAR = {
    "Add", "Alias", "Between", "Boolean", "CTE", "Column", "DPipe", "DataType", "Distinct", "Div", "EQ", "From",
    "GT", "GTE", "Group", "Identifier", "In", "Is", "Join", "LT", "LTE", "Limit", "Literal", "Mul", "NEQ", "Neg",
    "Not", "Null", "Order", "Ordered", "Paren", "Select", "Star", "Sub", "Subquery", "Table", "TableAlias", "Where",
    "Window", "With", "WithinGroup",
}
TYPES = {"ARRAY", "BIGINT", "BOOLEAN", "DATE", "DOUBLE", "FLOAT", "INT", "SMALLINT", "TEXT", "TIMESTAMP", "VARCHAR"}


class Spark33(Spark):
    """Spark has an exact percentile_disc since 3.3: sqlglot still writes the approximate one, another number."""

    class Generator(Spark.Generator):
        TRANSFORMS: ClassVar = {
            kind: write for kind, write in Spark.Generator.TRANSFORMS.items() if kind is not exp.WithinGroup
        }


@functools.cache
def to_spark(sql: str) -> str:
    """In Spark's dialect, with identifiers as they are; raises `sqlglot.errors.SqlglotError`."""
    return sqlglot.transpile(sql, read="duckdb", write=Spark33, unsupported_level=ErrorLevel.RAISE)[0]


def is_number(node: exp.Expression, pattern: str) -> bool:
    """Is it a number that is written like this?"""
    return isinstance(node, exp.Literal) and not node.is_string and bool(re.fullmatch(pattern, node.name.lower()))


def node_obstacle(node: exp.Expression) -> str | None: # pattern of the reason
    """Why a part of a query isn't the same on Spark."""
    if isinstance(node, exp.PercentileDisc) and not isinstance(node.parent, exp.WithinGroup):
        return "percentile_disc takes its column WITHIN GROUP (ORDER BY …)"
    if isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div)):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if is_number(one, r"\d*\.\d*") and not is_number(other, r".*e.*"):
                return f"{node}: 1.0 is a decimal, for which Spark has rules of its own; 1e0 is a double"
    numbers_rows = isinstance(node, exp.Window) and isinstance(node.this, (exp.RowNumber, exp.Lag, exp.Lead))
    if numbers_rows and not node.args.get("order"):
        return f"{node} numbers rows in no order"
    has_using = any(join.args.get("using") for join in node.args.get("joins") or ())
    if isinstance(node, exp.Select) and node.is_star and has_using:
        return f"{node}: what * means beside USING is not agreed on"
    if isinstance(node, exp.RegexpReplace) and re.search(r"\\\d", node.args["replacement"].name):
        return f"{node} puts groups back by \\1, which Spark calls $1"
    if isinstance(node, exp.DataType) and node.this.name not in TYPES:
        return f"Spark has no type {node}"
    if isinstance(node, exp.Table) and (node.db or not isinstance(node.this, exp.Identifier)):
        return f"{node} is a file, not a table"
    if isinstance(node, exp.Column) and node.name.lower() == "rowid":
        return "rowid is DuckDB's"
    if type(node).__name__ not in GRAMMAR and not isinstance(node, exp.Func):
        return f"{type(node).__name__} hasn't been looked up: {node}"
    return None


@functools.cache
def obstacles(sql: str) -> tuple[str, ...]:
    """Why a query in DuckDB's dialect isn't the same on Spark: nothing, if it is."""
    try:
        written = to_spark(sql)
        tree = sqlglot.parse_one(written, read=Spark33)
    except sqlglot.errors.SqlglotError as error:
        return (f"can't be translated: {error}",)
    tokens = sqlglot.tokenize(written, read=Spark33)
    called = {
        token.text.upper() for token, after in itertools.pairwise(tokens)
        if after.text == "(" and token.end + 1 == after.start
    }
    found = [f"{name} hasn't been looked up in Spark's reference" for name in sorted(called - FUNCTIONS)]
    found += [reason for node in tree.walk() if (reason := node_obstacle(node))]
    joins = sqlglot.parse_one(sql, read="duckdb").find_all(exp.Join)
    return (*found, *(f"Spark has no {join.method} JOIN" for join in joins if join.method))


@dataclass(frozen=True)
class Statement:
    """What was sent, and from where."""

    kind: str # SELECT, COPY, CREATE VIEW, …
    sender: str # module.function
    why_local: str | None # of `LOCAL`
    query: str | None # the query in it, if it is not DuckDB's own
    difference: str | None # between the query's rows and those after a round trip through Spark's dialect


@functools.cache
def module_of(file: str) -> str | None: # data.ingest
    """The module of the package that a file is, if it is one."""
    path = Path(file)
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts) if path.is_relative_to(PACKAGE) else None


def calls() -> list[tuple[str, str, int]]: # module, function, line; the innermost first
    """The package's functions on the call stack."""
    found, frame = [], sys._getframe(1)
    while frame:
        module = module_of(frame.f_code.co_filename)
        if module:
            found.append((module, frame.f_code.co_qualname, frame.f_lineno))
        frame = frame.f_back
    return found


@functools.cache
def parts_of(sql: str) -> tuple[str, str | None]: # kind, the query in it
    """A statement taken apart."""
    tree = sqlglot.parse(sql, read="duckdb")[0]
    if isinstance(tree, exp.Create):
        has_query = isinstance(tree.expression, exp.Query)
        return f"CREATE {tree.kind}", re.split(r"\bAS\s", sql, maxsplit=1)[1] if has_query else None
    if isinstance(tree, exp.Copy):
        return "COPY", re.fullmatch(r"COPY \((.*)\) TO .*", sql, re.DOTALL)[1]
    return tree.key.upper(), sql if isinstance(tree, exp.Query) else None


class Recorder:
    """A connection that remembers what it is sent, and tries each portable query in both dialects."""

    def __init__(self, con: duckdb.DuckDBPyConnection, sent: list[Statement], lines: set[tuple[str, int]]):
        self._con, self._sent, self._lines = con, sent, lines

    def __enter__(self): return self

    def __exit__(self, *error): self._con.close()

    def __getattr__(self, name): return getattr(self._con, name)

    def execute(self, sql, *parameters):
        self._record(sql)
        return self._con.execute(sql, *parameters)

    def sql(self, sql):
        self._record(sql)
        return self._con.sql(sql)

    def _record(self, sql: str) -> None:
        stack = calls()
        self._lines |= {(module, line) for module, _, line in stack}
        module, function, _ = next(call for call in stack if call[1] != "fetch_value")
        sender, (kind, query) = f"{module}.{function}", parts_of(sql)
        why = next((why for why, senders in LOCAL.items() if kind in senders.get(sender, ())), None)
        if why and sender != "data.tables.write_table":
            query = None
        self._sent.append(Statement(kind, sender, why, query, self._compare(query) if query else None))

    def _compare(self, query: str) -> str | None:
        """How a query's rows differ after it went to Spark's dialect and back."""
        try:
            spark = to_spark(query)
            back = sqlglot.transpile(spark, read=Spark33, write="duckdb", unsupported_level=ErrorLevel.RAISE)[0]
            if not sqlglot.parse_one(query, read="duckdb").args.get("order"):  # rows may come in any order, and do
                query, back = (f"SELECT * FROM ({text}) ORDER BY ALL" for text in (query, back))
            before, after = (self._con.execute(text).df() for text in (query, back))
            before, after = (frame.set_axis(range(frame.shape[1]), axis=1) for frame in (before, after))
            pd.testing.assert_frame_equal(after, before, check_dtype=False, rtol=1e-12, atol=0)
        except (sqlglot.errors.SqlglotError, duckdb.Error, AssertionError) as error:
            return f"{type(error).__name__}: {error}"
        return None


BAD_SCORES = "1,1,0.5\n1,9,0.5\n1,2,2\n"
BAD_ROWS = "1,1,9.0,1200000000\n1,1,\n1,one,3.0,1200000000\n80,999,3.0,1200000000\n"


def read_own_files(folder: Path, name: str, own: OwnData) -> None:
    """Inspect and ingest files, setting bad rows aside and then stopping at them."""
    inspect(own)
    settings = tiny_settings(folder, dataset=name, on_bad_rows="quarantine")
    build_interactions(settings, ingest(settings, own))
    with suppress(DataError):
        ingest(tiny_settings(folder, dataset=f"strict-{name}"), own)


def use_own_files(folder: Path) -> None:
    """Read files of several kinds, good and bad, as `run` and `inspect` do."""
    events = "".join(f"{user},{movie},{1_500_000_000 + 7 * user + movie}\n" for user in range(3) for movie in (1, 2, 1))
    files = {
        "plays": "userId,movieId,timestamp\n" + events,
        "ratings": "userId,movieId,rating,date\n1,1,4.5,13.2.2020\n1,1,3,14.2.2020\n2,2,5,1.3.2020\n2,9,5,1.3.2020\n",
        "bare": "1.0\t1\t4.5\t1500000000\n2.0\t1\t3\t1500000001\n",
        "json": '{"userId": 1, "movieId": 1, "timestamp": 1500000000}\n',
        "multiline": 'userId,movieId,timestamp\n"1\n",1,1500000000\n,2,1500000001\n',
        "films": "movieId,title,genres,year\n1,A,Drama;War,1990\n2,B,,\n2005-11-01,C,,\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    for name in ("plays", "ratings", "bare", "json", "multiline"):
        read_own_files(folder, name, OwnData(folder / name, None if name == "plays" else folder / "films"))
    with connect(movies=paths(tiny_settings(folder, dataset="ratings")).tables / "movies.parquet") as con:
        columns = "movieId, title, genres, DATE '2020-01-01' AS timestamp, CAST(nullif(movieId, 2) AS DOUBLE) AS userId"
        write_table(con, f"SELECT {columns} FROM movies", folder / "typed")
    read_own_files(folder, "typed", OwnData(folder / "typed", folder / "typed"))
    inspect(OwnData(folder / "ratings", time_format="%d.%m.%Y"))
    (folder / "ratings").write_text("userId,movieId,timestamp\n1\n")
    with pytest.raises(DataError, match="no row could be read"):
        inspect(OwnData(folder / "ratings"))


def use_tables(folder: Path) -> None:
    """Ingest all kinds of sources, good and bad, and split the interactions under every protocol."""
    archive = add_genome(write_archive(folder / "archive"))
    with (archive / "genome-scores.csv").open("a") as file:
        file.write(BAD_SCORES)
    (archive / "links.csv").write_text("movieId,imdbId,tmdbId\n1,0114709,862\n2,0113497,\n")
    with (archive / "ratings.csv").open("a") as file:
        file.write(BAD_ROWS)
    with pytest.raises(DataError):
        ingest(tiny_settings(folder), archive)
    settings = tiny_settings(folder, on_bad_rows="quarantine")
    data = build_interactions(settings, ingest(settings, archive))
    for protocol in PROTOCOL_RULES:
        build_split(settings, data, protocol)
    movies_with_tmdb_id(settings)
    use_own_files(folder)
    frame = pd.DataFrame({"userId": [1, None], "movieId": [1.0, 2.0], "rating": [4.5, 3.0]})
    frame["timestamp"] = pd.Timestamp("2024-05-01", tz="UTC")
    items = pd.DataFrame({"movieId": [1, 2], "title": ["Nardis", "Solar"]})
    assert len(from_frame(frame, items=items, folder=folder / "frames", on_bad_rows="quarantine").rejects) == 1
    assert load_movies(settings)[0].imdb_id == 114709
    check_user_name(settings, "Zoë")
    synthesize(folder / "synthetic.zip", scale=0.001)


def repeat_run(tiny_run, folder: Path) -> None:
    """Make the tables of a copied run again: features, lists, evaluation and what is saved of it."""
    settings = copy_of_run(tiny_run[0], folder, protocol="global-time")
    where = paths(settings)
    for artifact in (where.features, where.lists("global-time"), where.evaluation("global-time"), where.runs):
        shutil.rmtree(artifact)
    run(settings)
    compare(settings, ("popularity", "als"))
    export_run_split(settings, "global-time", folder / "split")
    export_run_recommendations(settings, "global-time", "als", 5, folder / "lists.parquet")
    following = settings.model_copy(update={"protocol": "global-next"})
    run(following)
    export_run_split(following, "global-next", folder / "split")
    export_run_recommendations(following, "global-next", "als", 5, folder / "lists.parquet")
    names = read_runs(settings)["run"].tolist()
    run_metrics(settings, names, "ndcg@5")
    runs_table(settings, names)
    example_user(settings)


@pytest.fixture(scope="module")
def recorded(tiny_run, tmp_path_factory) -> tuple[list[Statement], set[tuple[str, int]]]:
    """All that the package does with tables, in small: the statements, and module and line of all calls behind them."""
    sent, lines, connect = [], set(), duckdb.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", lambda *args, **options: Recorder(connect(*args, **options), sent, lines))
        use_tables(tmp_path_factory.mktemp("tables"))
        repeat_run(tiny_run, tmp_path_factory.mktemp("run"))
    return sent, lines


def test_every_call_that_sends_sql_was_recorded(recorded):
    _, lines = recorded
    for file in sorted(PACKAGE.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in calls:
            is_method = isinstance(call.func, ast.Attribute)
            name = call.func.attr if is_method else getattr(call.func, "id", None)
            sends = name in ("execute", "sql")
            sends |= name in ("query", "fetch_value", "write_table", "connect") and not is_method
            at = [(module_of(str(file)), line) for line in range(call.lineno, call.end_lineno + 1)]
            assert not sends or lines.intersection(at), (
                f"{file.name}, line {call.lineno}: `use_tables` or `repeat_run` should make this query run")


def test_every_query_runs_on_spark(recorded):
    sent, _ = recorded
    found = {statement.query: obstacles(statement.query) for statement in sent if statement.query}
    bad = [f"{query}: {'; '.join(reasons)}" for query, reasons in found.items() if reasons]
    assert not bad, "\n".join(bad)


def test_rows_are_the_same_after_a_round_trip_through_sparks_dialect(recorded):
    sent, _ = recorded
    assert sum(statement.query is not None for statement in sent) > 50
    different = {statement.query: statement.difference for statement in sent if statement.difference}
    assert not different, "\n".join(f"{query}: {how}" for query, how in different.items())


def test_what_is_duckdbs_own_is_known_and_no_more(recorded):
    sent, _ = recorded
    neither = [statement for statement in sent if not statement.why_local and not statement.query]
    unknown = {(statement.sender, statement.kind) for statement in neither}
    assert not unknown, "neither a query nor in `LOCAL`"
    used = {(statement.sender, statement.kind) for statement in sent if statement.why_local}
    assert used == {(sender, kind) for senders in LOCAL.values() for sender, kinds in senders.items() for kind in kinds}


@pytest.mark.parametrize(("sql", "why"), [
    ("SELECT parse_path(title) FROM t", "PARSE_PATH hasn't been looked up"),
    ("SELECT quantile_disc(a, 0.8) FROM t", "WITHIN GROUP"),
    ("SELECT a FROM t POSITIONAL JOIN u", "no POSITIONAL JOIN"),
    ("SELECT CAST(sum(a) AS HUGEINT) AS total FROM t", "no type INT128"),
    ("SELECT genres[1] AS first FROM t", "Bracket hasn't been looked up"),
    ("SELECT a FROM t USING SAMPLE 10", "TableSample hasn't been looked up"),
    ("SELECT arg_min(a, b) AS a FROM t", "MIN_BY hasn't been looked up"),
    ("SELECT a FROM read_parquet('t.parquet')", "is a file, not a table"),
    ("SELECT (7 - a) / 86400.0 FROM t", "1e0 is a double"),
    ("SELECT rating - 2.5 FROM t", "1e0 is a double"),
    ("SELECT row_number() OVER () FROM t", "numbers rows in no order"),
    ("SELECT rowid FROM t", "rowid is DuckDB's"),
    ("SELECT t.*, b FROM t JOIN u USING (a)", "is not agreed on"),
    (r"SELECT regexp_replace(title, '(.*), The', 'The \1') FROM t", "which Spark calls"),
    ("SELECT make_timestamp(a * 1000000) FROM t", "TIMESTAMP_MICROS hasn't been looked up"),
])
def test_what_would_not_run_on_spark_is_noticed(sql, why):
    assert any(re.search(why, reason) for reason in obstacles(sql)), obstacles(sql)


@pytest.mark.parametrize("sql", [
    "SELECT a FROM t WHERE rating > 3.5 ORDER BY a",
    "SELECT a, row_number() OVER (PARTITION BY a ORDER BY b) - 1 AS place FROM t JOIN u USING (a)",
    "SELECT *, (7 - a) / (30.0 * 86400e0) AS days FROM t",
    "SELECT percentile_disc(0.8) WITHIN GROUP (ORDER BY a) AS cut FROM t",
])
def test_what_runs_on_spark_is_let_through(sql):
    assert obstacles(sql) == ()
