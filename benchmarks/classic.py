#!/usr/bin/env python3
"""What a second version of a classic model costs: trees, word vectors, spaCy, beside others.

    python -m venv V && V/bin/pip install xgboost lightgbm catboost scikit-learn joblib lz4 \\
        fasttext-wheel spacy
    V/bin/python benchmarks/classic.py --write FOLDER      # two versions of each, by its library
    python benchmarks/classic.py FOLDER

`more` is the same model trained further (a tenth more trees, or one more epoch), `data` one that
was trained afresh on other data: one row in a hundred replaced, and no noise. The figures are bytes
that the second version adds: with this package the objects and, packed, what Git has (the
manifests); with Git alone its pack after `git repack -adf`; with git-lfs the file. `first` is what
the first version takes here and in Git.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class Repository:
    """A repository with nothing of the user's settings, for one file."""

    def __init__(self, folder: Path, name: str, *, theta: bool) -> None:
        """Make it; with `theta` the file is tracked."""
        folder.mkdir()
        self.path, self.name = folder, name
        for key, value in (("name", "benchmark"), ("email", "benchmark@localhost")):
            os.environ[f"GIT_AUTHOR_{key.upper()}"] = os.environ[f"GIT_COMMITTER_{key.upper()}"] = (
                value
            )
        self.run("git", "init", "-q")
        if theta:
            self.run("git-theta", "install", "--local")
            self.run("git-theta", "track", name)
            self.add()

    def run(self, *command: str) -> None:
        """Run a command quietly; raises CalledProcessError on failure."""
        subprocess.run(command, cwd=self.path, check=True, capture_output=True)

    def add(self) -> int:
        """Commit everything, and pack it; the bytes of all objects."""
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "--allow-empty", "-m", "version")
        self.run("git", "repack", "-adfq")
        folders = (".git/objects/pack", ".git/theta/objects")
        files = (file for one in folders for file in (self.path / one).rglob("*") if file.is_file())
        return sum(file.stat().st_size for file in files)


def measure(first: Path, second: Path) -> None:
    """Print one row of the table."""
    sizes: dict[bool, list[int]] = {}
    for theta in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            repository = Repository(Path(folder) / "repository", first.name, theta=theta)
            sizes[theta] = [repository.add()]
            for version in (first, second):
                shutil.copyfile(version, repository.path / first.name)
                sizes[theta].append(repository.add())
    ours, pack = sizes[True], sizes[False]
    added = ours[2] - ours[1], pack[2] - pack[1]
    print(
        f"| {first.name} | {second.stat().st_size:,} | {ours[1] - ours[0]:,} | "
        f"{pack[1] - pack[0]:,} | {added[0]:,} | {added[1]:,} | {added[0] / added[1]:.2f} |",
        flush=True,
    )


# -- writing, with the libraries -------------------------------------------------------------------


class Data:
    """Rows of thirty numbers and what follows from them; the others see no noise."""

    def __init__(self, rows: int = 20_000) -> None:
        """Draw them."""
        import numpy as np

        drawn = np.random.default_rng(0)
        self.x = drawn.normal(size=(rows, 30)).astype(np.float32)
        noise = 0.3 * drawn.normal(size=rows)
        self.y = self.x[:, 0] * self.x[:, 1] + np.sin(self.x[:, 2]) + noise.astype(np.float32)
        fresh = drawn.normal(size=(rows // 100, 30)).astype(np.float32)
        self.other_x = np.concatenate([self.x[: rows - len(fresh)], fresh])
        self.other_y = self.other_x[:, 0] * self.other_x[:, 1] + np.sin(self.other_x[:, 2])


def write_xgboost(old: Path, new: Path, data: Data) -> None:
    """200 trees, 220, and 200 others, as UBJSON and JSON."""
    import xgboost

    first, other = xgboost.DMatrix(data.x, data.y), xgboost.DMatrix(data.other_x, data.other_y)
    settings = {"max_depth": 8, "eta": 0.1, "seed": 0, "nthread": 2}
    model = xgboost.train(settings, first, 200)
    more = xgboost.train(settings, first, 20, xgb_model=model)
    again = xgboost.train(settings, other, 200)
    for ending in ("ubj", "json"):
        for name, second in (("more", more), ("data", again)):
            model.save_model(old / f"{name}.{ending}")
            second.save_model(new / f"{name}.{ending}")


def write_lightgbm(old: Path, new: Path, data: Data) -> None:
    """The same, as LightGBM's text."""
    import lightgbm

    settings = {"num_leaves": 127, "verbose": -1, "num_threads": 2, "deterministic": True}
    model = lightgbm.train(settings, lightgbm.Dataset(data.x, data.y), 200)
    more = lightgbm.train(settings, lightgbm.Dataset(data.x, data.y), 20, init_model=model)
    again = lightgbm.train(settings, lightgbm.Dataset(data.other_x, data.other_y), 200)
    for name, second in (("more", more), ("data", again)):
        model.save_model(old / f"{name}.lgb.txt")
        second.save_model(new / f"{name}.lgb.txt")


def write_catboost(old: Path, new: Path, data: Data) -> None:
    """300 trees, 330, and 300 others, as CatBoost's binary format."""
    from catboost import CatBoostRegressor

    def fresh(count: int) -> Any:
        how = {"depth": 8, "learning_rate": 0.1, "random_seed": 0, "thread_count": 2, "verbose": 0}
        return CatBoostRegressor(iterations=count, allow_writing_files=False, **how)

    model = fresh(300).fit(data.x, data.y)
    more = fresh(30).fit(data.x, data.y, init_model=model)
    again = fresh(300).fit(data.other_x, data.other_y)
    for name, second in (("more", more), ("data", again)):
        model.save_model(str(old / f"{name}.cbm"))
        second.save_model(str(new / f"{name}.cbm"))


def write_scikit_learn(old: Path, new: Path, data: Data) -> None:
    """Forests of 60 and 66 trees, and 60 others: pickled, by joblib, and compressed."""
    import joblib
    from sklearn.ensemble import RandomForestClassifier

    def dump(folder: Path, name: str, model: object) -> None:
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(model))
        joblib.dump(model, folder / f"{name}.joblib")
        joblib.dump(model, folder / f"{name}.joblib.z", compress=3)
        joblib.dump(model, folder / f"{name}.joblib.lz4", compress="lz4")

    forest = RandomForestClassifier(60, random_state=0, max_depth=12, warm_start=True)
    forest.fit(data.x, data.y > 0)
    dump(old, "more", forest)
    dump(old, "data", forest)
    forest.n_estimators = 66
    dump(new, "more", forest.fit(data.x, data.y > 0))
    again = RandomForestClassifier(60, random_state=0, max_depth=12, warm_start=True)
    dump(new, "data", again.fit(data.other_x, data.other_y > 0))


def write_fasttext(old: Path, new: Path, _: Data) -> None:
    """A classifier of one more epoch, and one with more sentences; quantised, too."""
    import fasttext

    drawn = random.Random(0)

    def sentence() -> str:
        label = drawn.randrange(10)
        words = (int(drawn.expovariate(1 / 800)) * (label + 1) % 8000 for _ in range(12))
        return f"__label__{label} " + " ".join(f"w{word}" for word in words)

    lines = [sentence() for _ in range(20_000)]
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        few.write_text("\n".join(lines))
        many.write_text("\n".join(lines + [sentence() for _ in range(400)]))
        for name, epochs, where in (("more", 5, old), ("more", 6, new), ("data", 5, old),
                                    ("data", 5, new)):  # fmt: skip
            source = many if (name, where) == ("data", new) else few
            model = fasttext.train_supervised(str(source), dim=50, epoch=epochs, thread=1,
                                              bucket=20_000, wordNgrams=2, verbose=0)  # fmt: skip
            model.save_model(str(where / f"{name}.bin"))
            if name == "data":
                model.quantize(str(source), retrain=False, cutoff=5000)
                model.save_model(str(where / "data.ftz"))


def write_spacy(old: Path, new: Path, _: Data) -> None:
    """The models of a small pipeline after three and four passes over its examples."""
    import spacy
    from spacy.training import Example

    spacy.util.fix_random_seed(0)
    pipeline = spacy.blank("en")
    names = ("tagger", "textcat")
    for name in ("tok2vec", *names):
        pipeline.add_pipe(name)
    drawn = random.Random(0)
    words = ["the", "cat", "sat", "on", "mat", "dog", "ran", "fast", "red", "blue"]
    examples = []
    for _ in range(200):
        chosen = [drawn.choice(words) for _ in range(8)]
        early = float(chosen[0] < "k")
        said = {"tags": [f"T{len(one)}" for one in chosen], "cats": {"A": early, "B": 1 - early}}
        examples.append(Example.from_dict(pipeline.make_doc(" ".join(chosen)), said))
    optimizer = pipeline.initialize(lambda: examples)
    for passes, folder in ((3, old), (1, new)):
        for _ in range(passes):
            pipeline.update(examples, sgd=optimizer)
        for name in names:
            (folder / f"spacy-{name}.model").write_bytes(pipeline.get_pipe(name).model.to_bytes())


WRITERS = (write_xgboost, write_lightgbm, write_catboost, write_scikit_learn, write_fasttext,
           write_spacy)  # fmt: skip


def main() -> None:
    """Write the models, or measure them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="write the models there first")
    parser.add_argument("--only", default="", help="files whose name holds this")
    arguments = parser.parse_args()
    old, new = arguments.folder / "v1", arguments.folder / "v2"
    if arguments.write:
        for folder in (old, new):
            folder.mkdir(parents=True, exist_ok=True)
        data = Data()
        for writer in WRITERS:
            writer(old, new, data)
        return
    os.environ["HOME"] = str(arguments.folder)
    os.environ["GIT_CONFIG_NOSYSTEM"] = "1"
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    print("| file | git-lfs | first here | first in Git | here | Git pack | here / pack |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for first in sorted(old.iterdir()):
        if arguments.only in first.name and (new / first.name).is_file():
            measure(first, new / first.name)


if __name__ == "__main__":
    main()
