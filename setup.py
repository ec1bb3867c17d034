"""Everything about the package stands in settings.ini, which nbdev reads too."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]
EXTRAS = ("app", "bench", "dev", "docs", "neural", "tune")
BUNDLED = ("ml-latest-small.zip", "ml-latest-small.README.txt", "NOTICE.txt")  # in data/


class BuildWithDataset(build_py):
    """Copy the bundled dataset into the package, as `bundled/`; an editable install finds it in the checkout."""

    def bundled_files(self) -> dict[str, str]:
        """Return where each file is, and where in the build it goes."""
        folder = Path(self.build_lib, cfg["lib_name"], "bundled")
        return {f"data/{name}": str(folder / name) for name in BUNDLED}

    def run(self) -> None:
        """Build the package, and copy the dataset."""
        super().run()
        if not self.editable_mode:
            for source, target in self.bundled_files().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files that `run` makes."""
        bundled = [] if self.editable_mode else list(self.bundled_files().values())
        return [*super().get_outputs(include_bytecode), *bundled]

    def get_source_files(self) -> list[str]:
        """Return the files that a source distribution needs."""
        return [*super().get_source_files(), "settings.ini", *self.bundled_files()]


setup(
    cmdclass={"build_py": BuildWithDataset},
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg["lib_name"], f"{cfg['lib_name']}.*"]),
    package_data={cfg["lib_name"]: ["static/*", "py.typed"]},  # the page's script, style and template
    install_requires=cfg["requirements"].split(),
    extras_require={extra: cfg[f"{extra}_requirements"].split() for extra in EXTRAS},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
)
