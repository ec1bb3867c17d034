"""What the pages of the report share: reading `reports/results`, nothing else, and a few ways to show it."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib import pyplot as plt

from movierec.config import project_root
from movierec.evaluation.plots import use_plot_style
from movierec.evaluation.tables import as_markdown, significance_marks, format_with_interval

RESULTS = project_root() / "reports" / "results"
DATASETS = ("ml-1m", "ml-latest-small")  # the one with enough users to tell systems apart comes first
TIMELY = ("global-time", "leave-last-out")  # the protocols that split by time
SHOWN = ("popularity", "popularity_recent", "als", "ease", "sequential", "linear_ar", "sasrec", "hybrid", "ranked_v2", "ranked_v3")  # where all would be too many

use_plot_style()


def read_json(name: str) -> dict[str, Any]:  # {} if there is no such file
    """A file below `reports/results`."""
    file = RESULTS / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def results_of(dataset: str) -> dict[str, dict]:  # file name without its ending → results
    """All evaluations of a data set that `movierec run` has written."""
    found = {file.stem: read_json(f"{dataset}/{file.name}") for file in sorted((RESULTS / dataset).glob("*.json"))}
    return {name: results for name, results in found.items() if "significance" in results}


def measured(names: tuple[str, ...] = TIMELY, datasets: tuple[str, ...] = DATASETS) -> list[dict]:
    """The evaluations of these names that exist."""
    return [found[name] for dataset in datasets for found in [results_of(dataset)] for name in names if name in found]


def tables_of(kind: str, names: tuple[str, ...] = TIMELY, datasets: tuple[str, ...] = DATASETS) -> dict[str, pd.DataFrame]:  # "ml-1m, global-time" → table
    """What `movierec ablate` has written of one kind."""
    files = {f"{dataset}, {name}": RESULTS / dataset / f"{name}-{kind}.csv" for dataset in datasets for name in names}
    return {label: pd.read_csv(file, index_col=0) for label, file in files.items() if file.is_file()}


def by_dataset(tables: dict[str, pd.DataFrame]) -> list[dict[str, pd.DataFrame]]:
    """The same tables, those of each data set together: a figure has the protocols side by side."""
    names = dict.fromkeys(label.split(", ")[0] for label in tables)
    return [{label: table for label, table in tables.items() if label.split(", ")[0] == name} for name in names]


def about(results: dict) -> str:
    """What a figure rests on: data set, protocol and users."""
    protocol, n_users = results["protocol"], next(iter(results["systems"].values()))["n_users"]
    relevant = "" if protocol["relevant"] == "liked" else ", every held-out event relevant"
    neural = ", with the neural source" if "sasrec" in results["systems"] else ""
    return f"{results['dataset']['name']}, {protocol['name']}{relevant}{neural}, test: {n_users:,} users"


def say(text: str) -> None:
    """Text with figures in it."""
    display(Markdown(text))


def nothing_yet(command: str) -> None:
    """In place of a figure whose file isn't there."""
    say(f"*Not measured yet. This writes it:* `{command}`")


def show(table: pd.DataFrame, caption: str, digits: int = 3) -> None:
    """A table with the line that says what it rests on."""
    text = table.map(lambda value: "" if pd.isna(value) else f"{value:,}" if isinstance(value, int | np.integer) else f"{value:.{digits}f}" if isinstance(value, float) else str(value))
    say(f"**{caption}**\n\n{as_markdown(text)}")


def signed(change: float) -> str:
    """A difference; one that rounds to nothing has no sign."""
    text = f"{change:+.3f}".replace("-", "−")
    return "0.000" if text[1:] == "0.000" else text


def main_table(results: dict, systems: tuple[str, ...] | None = None) -> pd.DataFrame:
    """The headline with intervals and marks, what longer lists find, and how much of the catalogue is shown."""
    headline, (first, *_, longest) = results["protocol"]["headline"], results["protocol"]["cutoffs"]
    marked = {metric: significance_marks(results, metric) for metric in headline}
    others = [metric for metric in (f"recall@{longest}", f"coverage@{first}") if metric not in headline]
    rows = {name + (" ◂" if name == results["best_on_validation"] else ""):
            {metric: f"{format_with_interval(system, metric)} {marked[metric][name]}".rstrip() for metric in headline} | {metric: system[metric] for metric in others}
            for name, system in results["systems"].items() if systems is None or name in systems}
    return pd.DataFrame(rows).T.rename_axis("system")


def panels(n: int, height: float, share: bool = False) -> tuple[plt.Figure, np.ndarray]:
    """A figure with `n` panels side by side."""
    figure, axes = plt.subplots(1, n, figsize=(9.5, height), squeeze=False, sharey=share)
    return figure, axes[0]


def rows_on(axes: Sequence[plt.Axes], labels: list[str]) -> None:
    """Name the rows that panels share, the first on top."""
    for axis in axes:
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0, labelleft=axis is axes[0])
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
