"""What the pages of the report share: reading `reports/results`, nothing else, and a few ways to show it."""

import json
from collections.abc import Iterable, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib import pyplot as plt

from movierec.config import project_root
from movierec.evaluation.plots import use_plot_style
from movierec.evaluation.tables import as_markdown, describe_users, format_with_interval, significance_marks

RESULTS = project_root() / "reports" / "results"
DATASETS = ("ml-1m", "ml-latest-small")  # the one with enough users for significant differences comes first
TIME_PROTOCOLS = ("global-time", "leave-last-out")  # the protocols that split by time
MAIN_SYSTEMS = (
    "popularity",
    "popularity_recent",
    "als",
    "ease",
    "sequential",
    "linear_ar",
    "sasrec",
    "hybrid",
    "ranked_v2",
    "ranked_v3",
    "ranked_unordered",
)  # where a table of all would be too long

use_plot_style()


def read_json(name: str) -> dict[str, Any]:  # {} if there is no such file
    """Read a file below `reports/results`."""
    file = RESULTS / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def results_of(dataset: str) -> dict[str, dict]:  # file name without its suffix → results
    """Read all evaluations of a dataset that `movierec run` has written."""
    files = sorted((RESULTS / dataset).glob("*.json"))
    found = {file.stem: read_json(f"{dataset}/{file.name}") for file in files}
    return {name: results for name, results in found.items() if "significance" in results}


def read_evaluations(names: tuple[str, ...] = TIME_PROTOCOLS, datasets: tuple[str, ...] = DATASETS) -> list[dict]:
    """Read the evaluations of these names that exist."""
    found = {dataset: results_of(dataset) for dataset in datasets}
    return [found[dataset][name] for dataset in datasets for name in names if name in found[dataset]]


def read_ablations(kind: str) -> dict[str, pd.DataFrame]:  # "ml-1m, global-time" → table
    """Read the tables of one kind that `movierec ablate` has written."""
    tables = {}
    for dataset in DATASETS:
        for protocol in TIME_PROTOCOLS:
            file = RESULTS / dataset / f"{protocol}-{kind}.csv"
            if file.is_file():
                tables[f"{dataset}, {protocol}"] = pd.read_csv(file, index_col=0)
    return tables


def by_dataset(tables: dict[str, pd.DataFrame]) -> list[dict[str, pd.DataFrame]]:
    """Group tables by dataset: a figure has the protocols side by side."""
    names = dict.fromkeys(label.split(", ")[0] for label in tables)
    return [{label: table for label, table in tables.items() if label.split(", ")[0] == name} for name in names]


def short_caption(results: dict) -> str:
    """Dataset and protocol of an evaluation."""
    return f"{results['dataset']['name']}, {results['protocol']['name']}"


def n_test_users(results: dict) -> int:
    """Number of evaluated users."""
    return next(iter(results["systems"].values()))["n_users"]


def caption(results: dict) -> str:
    """Dataset, protocol and number of test users of an evaluation, and of which sample they are, if of one."""
    relevant = "" if results["protocol"]["relevant"] == "liked" else ", every held-out event relevant"
    neural = ", with the neural source" if "sasrec" in results["systems"] else ""
    return f"{short_caption(results)}{relevant}{neural}, test: {describe_users(results)}"


def show_text(text: str) -> None:
    """Show Markdown with numbers from the results in it."""
    display(Markdown(text))


def show_missing(command: str) -> None:
    """Say how to make the file for a figure that can't be shown yet."""
    show_text(f"*Not measured yet. This writes it:* `{command}`")


def format_cell(value: Any, digits: int) -> str:
    """Format a number with separators or `digits` decimals; missing values are empty."""
    if pd.isna(value):
        return ""
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def show_table(table: pd.DataFrame, title: str, digits: int = 3) -> None:
    """Show a table with a line that says what it is based on."""
    text = table.map(lambda value: format_cell(value, digits))
    show_text(f"**{title}**\n\n{as_markdown(text)}")


def signed(change: float) -> str:
    """Format a difference with its sign; one that rounds to zero has none."""
    text = f"{change:+.3f}".replace("-", "−")
    return "0.000" if text[1:] == "0.000" else text


def headline_table(results: dict, systems: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Headline metrics with intervals and marks, recall of the longest list, and catalogue coverage."""
    headline, (first, *_, last) = results["protocol"]["headline"], results["protocol"]["cutoffs"]
    marks = {metric: significance_marks(results, metric) for metric in headline}
    others = [metric for metric in (f"recall@{last}", f"coverage@{first}") if metric not in headline]
    rows = {}
    for name, system in results["systems"].items():
        if systems is None or name in systems:
            label = f"{name} ◂" if name == results["chosen_on_validation"] else name
            texts = {metric: f"{format_with_interval(system, metric)} {marks[metric][name]}" for metric in headline}
            rows[label] = {metric: text.rstrip() for metric, text in texts.items()}
            rows[label] |= {metric: system[metric] for metric in others}
    return pd.DataFrame(rows).T.rename_axis("system")


def panels(n: int, height: float, share: bool = False) -> tuple[plt.Figure, np.ndarray]:
    """Return a figure with `n` panels side by side."""
    figure, axes = plt.subplots(1, n, figsize=(9.5, height), squeeze=False, sharey=share)
    return figure, axes[0]


def set_title(figure: plt.Figure, text: str) -> None:
    """Title a figure at the left."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=10)


def label_rows(axes: Sequence[plt.Axes], labels: list[str]) -> None:
    """Label the rows that panels share, the first on top."""
    for axis in axes:
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0, labelleft=axis is axes[0])
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)


IDENTITY = ("commit", "processor", "cores", "memory_gb", "blas")  # what has to agree in one environment
SAME_SPEED = 0.85  # of two probes of one machine, the slower is at least so much of the faster


def blas_speed(machine: dict, dtype: str = "float32") -> float | None:  # 10⁹ operations per second
    """Return the throughput of BLAS that was probed on a machine; None if it wasn't."""
    return machine.get("blas_gflops", {}).get(dtype)


def is_same_environment(one: dict, other: dict) -> bool:
    """Say whether measurements were made at one commit and on one machine, as far as was recorded."""
    if any(one.get(name) != other.get(name) for name in IDENTITY):
        return False
    speeds = blas_speed(one), blas_speed(other)
    if None in speeds:
        return speeds[0] == speeds[1]
    return min(speeds) >= SAME_SPEED * max(speeds)


def describe_environment(machine: dict) -> dict[str, str]:
    """Return the columns of a table of environments; what wasn't recorded is a dash."""
    speed, memory, copied = machine.get("blas_gflops"), machine.get("memory_gb"), machine.get("copied_gb_per_s")
    kernels = dict.fromkeys(kernel.split(", ")[-1] for kernel in machine.get("blas", ()))
    columns = {
        "commit": machine.get("commit"),
        "day": machine.get("day"),
        "processor": machine.get("processor"),
        "cores": machine.get("cores"),
        "memory, GB": memory and f"{memory:.0f}",
        "BLAS kernel": ", ".join(kernels),
        "float32 GFLOPS": speed and f"{speed['float32']:.0f}",
        "float64 GFLOPS": speed and f"{speed['float64']:.0f}",
        "copying, GB per s": copied and f"{copied:.0f}",
    }
    return {name: str(value or "–") for name, value in columns.items()}


class Environments:
    """The machines and commits behind a page's figures, lettered in the order in which they are given."""

    def __init__(self, machines: Iterable[dict]):
        self.found: list[dict] = []
        for machine in machines:
            if not any(is_same_environment(machine, other) for other in self.found):
                self.found.append(machine)

    def letter(self, machine: dict) -> str:
        """Return the letter of a machine's environment; empty if all figures share one."""
        if len(self.found) < 2:
            return ""
        place = next(place for place, other in enumerate(self.found) if is_same_environment(machine, other))
        return ascii_uppercase[place % 26] * (place // 26 + 1)

    def label(self, text: str, machine: dict) -> str:
        """Append the letter to a label, if there are several environments."""
        letter = self.letter(machine)
        return f"{text} ({letter})" if letter else text

    def show(self) -> None:
        """Show what the page's figures were measured on: a sentence if it is one environment, else a table."""
        if len(self.found) == 1:
            told = ", ".join(f"{name} {value}" for name, value in describe_environment(self.found[0]).items())
            show_text(f"All figures on this page come from one machine and one commit: {told}.")
        elif self.found:
            rows = {self.letter(machine): describe_environment(machine) for machine in self.found}
            show_table(pd.DataFrame(rows).T.rename_axis("environment"), "Where and at which commit it was measured")
            show_text(
                "A letter says where a figure comes from: compare times within a letter only. "
                "A dash: that wasn't recorded."
            )
