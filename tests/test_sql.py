"""The SQL of the table stages runs on another engine: every query that the package sends is seen, translated for Spark, and compared."""

import ast
import functools
import inspect
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import duckdb
import pandas as pd
import pytest
import sqlglot
from helpers import tiny_settings, write_archive
from sqlglot import ErrorLevel, exp
from sqlglot.dialects import Spark

import movierec
from movierec.artifacts import paths
from movierec.config import DataError
from movierec.data.ingest import ingest
from movierec.data.own_data import OwnData, parse_columns
from movierec.data.splits import PROTOCOL_CLASSES, build_split
from movierec.data.synthetic import synthesize
from movierec.evaluation.runs import run_metrics, read_runs
from movierec.pipeline import compare, export_run_recommendations, export_run_split, example_user, run
from movierec.serving.poster_download import movies_with_tmdb_id
from movierec.opening import open_data

PACKAGE = Path(movierec.__file__).parent

# What is DuckDB's own: why, then who sends which kinds of statement. What `write_table` is given to copy, and the query of any other CREATE … AS, has to be portable all the same.
READING = "a file's rows in their order, numbered by rowid, and what in them could not be read: it ends with four checked Parquet tables, where the portable part begins"
LOCAL = {
    "switches are an engine's own": {"tables.connect": {"SET"}, "synthetic._write_csv": {"SET"}},
    "a Parquet file becomes a table: elsewhere a catalogue does that": {"tables.view_parquet": {"CREATE VIEW"}},
    "rows become a Parquet file: elsewhere a writer's method": {"tables.write_table": {"COPY"}},
    "rows become a CSV file, of made-up data to measure speed with": {"synthetic._write_csv": {"COPY"}},
    "run.json is read as a table, by who lists the runs": {"runs.read_runs": {"SELECT"}},
    READING: {
        "archive.create_problems_table": {"CREATE TABLE"},
        "archive.create_raw_table": {"CREATE TABLE"},
        "archive._collect_rejects": {"SELECT", "INSERT", "DROP"},
        "own_data._describe_file": {"DESCRIBE"},
        "own_data.OwnData.load": {"CREATE TABLE"},
        "validate._is_sorted_and_unique": {"SELECT"},
        "validate._has_duplicates": {"SELECT"},
        "validate._reject_duplicates": {"DELETE"},
        "validate._reject_rows": {"SELECT", "INSERT", "DELETE"},
        "validate._locate_problems": {"UPDATE"},
        "ingest._create_empty_table": {"CREATE TABLE"},
        "ingest._write_tables": {"CREATE VIEW"},
    },
}

# Looked up in Spark's reference of built-in functions (spark.apache.org/docs/latest/api/sql): a name that isn't here has to be looked up, too.
FUNCTIONS = {"ARRAY", "ARRAY_DISTINCT", "ARRAY_SORT", "AVG", "BOOL_AND", "CAST", "COALESCE", "CONCAT", "COUNT", "EXPLODE", "FLOOR", "GREATEST", "LOG", "MAX", "MD5", "NULLIF",
             "PERCENTILE_DISC", "POWER", "ROW_NUMBER", "SPLIT", "SUM", "TRY_CAST", "YEAR"}

GRAMMAR = {"Add", "Alias", "Between", "Boolean", "CTE", "Column", "DPipe", "DataType", "Distinct", "Div", "EQ", "From", "GT", "GTE", "Group", "Identifier", "In", "Is", "Join", "LT", "LTE", "Limit", "Literal",
           "Mul", "NEQ", "Neg", "Not", "Null", "Order", "Ordered", "Paren", "Select", "Star", "Sub", "Subquery", "Table", "TableAlias", "Where", "Window", "With", "WithinGroup"}
TYPES = {"ARRAY", "BIGINT", "BOOLEAN", "DATE", "DOUBLE", "FLOAT", "INT", "SMALLINT", "TEXT", "TIMESTAMP", "VARCHAR"}


class Spark33(Spark):
    """Spark has had an exact percentile_disc since 3.3: sqlglot still writes the approximate one, which is another number."""

    class Generator(Spark.Generator):
        TRANSFORMS: ClassVar = {kind: write for kind, write in Spark.Generator.TRANSFORMS.items() if kind is not exp.WithinGroup}


def to_spark(sql: str) -> str:
    """In Spark's words, with identifiers as they are; raises `sqlglot.errors.SqlglotError`."""
    return sqlglot.transpile(sql, read="duckdb", write=Spark33, unsupported_level=ErrorLevel.RAISE)[0]


def is_number(node: exp.Expression, pattern: str) -> bool:
    """Is it a number that is written so?"""
    return isinstance(node, exp.Literal) and not node.is_string and bool(re.fullmatch(pattern, node.name.lower()))


def obstacles(sql: str) -> list[str]:
    """Why a query in DuckDB's dialect isn't the same on Spark: nothing, if it is."""
    try:
        written = to_spark(sql)
        tree = sqlglot.parse_one(written, read=Spark33)
    except sqlglot.errors.SqlglotError as error:
        return [f"can't be translated: {error}"]
    tokens = sqlglot.tokenize(written, read=Spark33)
    called = {token.text.upper() for token, after in itertools.pairwise(tokens) if after.text == "(" and token.end + 1 == after.start}
    found = [f"{name} hasn't been looked up in Spark's reference" for name in sorted(called - FUNCTIONS)]
    found += ["percentile_disc takes its column WITHIN GROUP (ORDER BY …)" for node in tree.find_all(exp.PercentileDisc) if not isinstance(node.parent, exp.WithinGroup)]
    found += [f"{node}: 1.0 is a decimal, for which Spark has rules of its own; 1e0 is a double" for node in tree.find_all(exp.Add, exp.Sub, exp.Mul, exp.Div)
              for one, other in ((node.left, node.right), (node.right, node.left)) if is_number(one, r"\d*\.\d*") and not is_number(other, r".*e.*")]
    found += [f"{node} numbers rows in no order" for node in tree.find_all(exp.Window) if isinstance(node.this, (exp.RowNumber, exp.Lag, exp.Lead)) and not node.args.get("order")]
    found += [f"{node}: what * means beside USING is not agreed on" for node in tree.find_all(exp.Select) if node.is_star and any(join.args.get("using") for join in node.args.get("joins") or ())]
    found += [f"{node} puts groups back by \\1, which Spark calls $1" for node in tree.find_all(exp.RegexpReplace) if re.search(r"\\\d", node.args["replacement"].name)]
    found += [f"{type(node).__name__} hasn't been looked up: {node}" for node in tree.walk() if type(node).__name__ not in GRAMMAR and not isinstance(node, exp.Func)]
    found += [f"Spark has no type {node}" for node in tree.find_all(exp.DataType) if node.this.name not in TYPES]
    found += [f"Spark has no {node.method} JOIN" for node in sqlglot.parse_one(sql, read="duckdb").find_all(exp.Join) if node.method]
    found += [f"{node} is a file, not a table" for node in tree.find_all(exp.Table) if node.db or not isinstance(node.this, exp.Identifier)]
    found += ["rowid is DuckDB's" for node in tree.find_all(exp.Column) if node.name.lower() == "rowid"]
    return found


@dataclass(frozen=True)
class Statement:
    """What was sent, and by whom."""

    sql: str
    kind: str # SELECT, COPY, CREATE VIEW, …
    sender: str # module.function
    why_local: str | None # of `LOCAL`
    rows_of: str | None # the query in it, if it is not DuckDB's own
    differs: str | None # how its rows are others after it went to Spark's dialect and back


def calls_on_the_way() -> list[tuple[str, str, int]]: # module, function, line, the innermost first
    """Who in the package is being run."""
    return [(Path(frame.filename).stem, frame.frame.f_code.co_qualname, frame.lineno) for frame in inspect.stack(0) if PACKAGE in Path(frame.filename).parents]


@functools.cache
def parts_of(sql: str) -> tuple[str, str | None]: # kind, the query in it
    """A statement taken apart."""
    tree = sqlglot.parse(sql, read="duckdb")[0]
    if isinstance(tree, exp.Create):
        return f"CREATE {tree.kind}", re.split(r"\bAS\s", sql, maxsplit=1)[1] if isinstance(tree.expression, exp.Query) else None
    if isinstance(tree, exp.Copy):
        return "COPY", re.fullmatch(r"COPY \((.*)\) TO .*", sql, re.DOTALL)[1]
    return tree.key.upper(), sql if isinstance(tree, exp.Query) else None


class Wire:
    """A connection that remembers what it is sent, and tries each portable query in both forms."""

    def __init__(self, con: duckdb.DuckDBPyConnection, sent: list[Statement], lines: set[tuple[str, int]]):
        self._con, self._sent, self._lines = con, sent, lines

    def __enter__(self): return self

    def __exit__(self, *error): self._con.close()

    def __getattr__(self, name): return getattr(self._con, name)

    def execute(self, sql, *parameters):
        self._note(sql)
        return self._con.execute(sql, *parameters)

    def sql(self, sql):
        self._note(sql)
        return self._con.sql(sql)

    def _note(self, sql: str) -> None:
        way = calls_on_the_way()
        self._lines |= {(module, line) for module, _, line in way}
        module, function, _ = next(call for call in way if call[1] != "fetch_value")
        sender, (kind, query) = f"{module}.{function}", parts_of(sql)
        why = next((why for why, senders in LOCAL.items() if kind in senders.get(sender, ())), None)
        rows_of = None if why and sender != "tables.write_table" else query
        self._sent.append(Statement(sql, kind, sender, why, rows_of, self._try(rows_of) if rows_of else None))

    def _try(self, query: str) -> str | None:
        try:
            back = sqlglot.transpile(to_spark(query), read=Spark33, write="duckdb", unsupported_level=ErrorLevel.RAISE)[0]
            ordered = sqlglot.parse_one(query, read="duckdb").args.get("order")  # without ORDER BY rows may come in any order, and do
            before, after = (self._con.execute(text if ordered else f"SELECT * FROM ({text}) ORDER BY ALL").df() for text in (query, back))
            pd.testing.assert_frame_equal(after.set_axis(range(after.shape[1]), axis=1), before.set_axis(range(before.shape[1]), axis=1), check_dtype=False, rtol=1e-12, atol=0)
        except (sqlglot.errors.SqlglotError, duckdb.Error, AssertionError) as error:
            return f"{type(error).__name__}: {error}"
        return None


OWN = "userId,movieId,timestamp\n" + "".join(f"{user},{movie},{1_500_000_000 + 7 * user + movie}\n" for user in range(30) for movie in (1, 2, user + 3, 1))


@pytest.fixture(scope="module")
def wire(tmp_path_factory) -> tuple[list[Statement], set[tuple[str, int]]]: # statements; module and line of every call they came through
    """Everything that the package does with tables, once, in small."""
    folder, sent, lines = tmp_path_factory.mktemp("sql"), [], set()
    connect = duckdb.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb, "connect", lambda *args, **options: Wire(connect(*args, **options), sent, lines))
        settings = tiny_settings(folder, protocol="global-time")
        archive = write_archive(folder / "archive")
        (archive / "links.csv").write_text("movieId,imdbId,tmdbId\n1,0114709,862\n2,0113497,\n")
        with (archive / "ratings.csv").open("a") as file:
            file.write("1,1,9.0,1200000000\n1,1,\n1,one,3.0,1200000000\n80,999,3.0,1200000000\n")
        with pytest.raises(DataError):
            run(settings, archive)
        settings = settings.model_copy(update={"on_bad_rows": "quarantine"})
        run(settings, archive)
        for protocol in PROTOCOL_CLASSES:
            build_split(settings, open_data(settings), protocol)
        compare(settings, ("popularity", "als"))
        export_run_split(settings, "global-time", folder / "split")
        export_run_recommendations(settings, "global-time", "als", 5, folder / "lists.parquet")
        run_metrics(settings, read_runs(settings)["run"].tolist(), "ndcg@5")
        movies_with_tmdb_id(settings)
        example_user(settings)
        (folder / "own.csv").write_text(OWN)
        ingest(settings.model_copy(update={"dataset": "own"}), OwnData(folder / "own.csv"))
        with connect() as con:
            con.execute(f"COPY (SELECT userId, movieId, timestamp, 7.0 AS rating FROM read_csv('{folder}/own.csv')) TO '{folder}/own.parquet' (FORMAT parquet)")
        with pytest.raises(DataError):
            ingest(settings.model_copy(update={"dataset": "parquet", "on_bad_rows": "stop"}), OwnData(folder / "own.parquet", columns=parse_columns("rating=rating")))
        synthesize(folder / "made-up.zip", scale=0.001)
    assert paths(settings).warehouse.is_file()
    return sent, lines


def test_every_call_that_sends_sql_was_seen(wire):
    _, lines = wire
    for file in sorted(PACKAGE.rglob("*.py")):
        for call in (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
            if name in ("execute", "sql", "query", "fetch_value", "write_table", "connect") and not (name == "connect" and not isinstance(call.func, ast.Name)):
                assert any((file.stem, line) in lines for line in range(call.lineno, call.end_lineno + 1)), f"{file.name}, line {call.lineno}: the fixture `wire` should make this query run"


def test_every_query_runs_on_spark(wire):
    sent, _ = wire
    found = {query: problems for query in {statement.rows_of for statement in sent if statement.rows_of} if (problems := obstacles(query))}
    assert not found, "\n".join(f"{query}: {'; '.join(problems)}" for query, problems in found.items())


def test_rows_are_the_same_after_a_journey_to_spark_s_dialect_and_back(wire):
    sent, _ = wire
    assert sum(statement.rows_of is not None for statement in sent) > 50
    differing = {statement.rows_of: statement.differs for statement in sent if statement.differs}
    assert not differing, "\n".join(f"{query}: {how}" for query, how in differing.items())


def test_what_is_duckdb_s_own_is_known_and_no_more(wire):
    sent, _ = wire
    unknown = {(statement.sender, statement.kind) for statement in sent if not statement.why_local and not statement.rows_of}
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
    assert any(re.search(why, problem) for problem in obstacles(sql)), obstacles(sql)


@pytest.mark.parametrize("sql", [
    "SELECT a FROM t WHERE rating > 3.5 ORDER BY a",
    "SELECT a, row_number() OVER (PARTITION BY a ORDER BY b) - 1 AS place FROM t JOIN u USING (a)",
    "SELECT *, (7 - a) / (30.0 * 86400e0) AS days FROM t",
    "SELECT percentile_disc(0.8) WITHIN GROUP (ORDER BY a) AS cut FROM t",
])
def test_what_runs_on_spark_is_let_through(sql):
    assert obstacles(sql) == []
