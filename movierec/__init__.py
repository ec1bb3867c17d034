"""A multi-stage movie recommender: `load_dataset` or `from_frame`, then `fit`, `recommend`, `evaluate`, `save`, `load`."""

__version__ = "0.1.0"

__all__ = ["Dataset", "Model", "__version__", "from_frame", "load", "load_dataset"]

TYPE_CHECKING = False  # type checkers take it as true; importing it from `typing` would cost time
if TYPE_CHECKING:
    from .facade import Dataset, Model, from_frame, load, load_dataset


def __getattr__(name: str) -> object:
    "Import the Python interface when one of its names is first used, so that `import movierec` stays fast."
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import facade

    return getattr(facade, name)


def __dir__() -> list[str]:
    "Return the names of the module, those that aren't imported yet included."
    return sorted({*globals(), *__all__})
