"""Writes the models below `tests/golden/classic`, with the libraries that own their formats.

    python -m venv V && V/bin/pip install spacy fasttext-wheel scikit-learn xgboost lz4
    V/bin/python tests/golden/make_classic.py

They were written with thinc 8.3.14, fasttext 0.9.2, scikit-learn 1.9.1, joblib 1.6.0 and xgboost
3.2.0. `first` and `second` are two versions of one model: trained further, or with more trees.
"""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

import fasttext
import joblib
import numpy as np
import xgboost
from sklearn.ensemble import RandomForestClassifier
from thinc.api import Adam, HashEmbed, Maxout, Softmax, chain

FOLDER = Path(__file__).parent / "classic"


def thinc_models() -> None:
    """A layer of embeddings by hash, one of maxout, one of softmax; and a step further."""
    model = chain(HashEmbed(8, 20), Maxout(6, 8, nP=2), Softmax(3, 6))
    keys = np.arange(12, dtype=np.uint64)
    model.initialize(X=keys, Y=np.eye(3, dtype="f")[np.arange(12) % 3])
    (FOLDER / "thinc-first.model").write_bytes(model.to_bytes())
    guess, back = model.begin_update(keys)
    back(guess - np.eye(3, dtype="f")[np.arange(12) % 3])
    model.finish_update(Adam(0.01))
    (FOLDER / "thinc-second.model").write_bytes(model.to_bytes())


def fasttext_models() -> None:
    """A classifier of two labels, the second with one more sentence, and one that is quantised."""
    lines = [f"__label__{'ab'[n % 2]} w{n % 5} w{n % 3} x{n % 7}" for n in range(60)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        for name, more in (("first", []), ("second", ["__label__a new words here"])):
            file.seek(0)
            file.write("\n".join([*lines, *more]) + "\n")
            file.flush()
            model = fasttext.train_supervised(
                file.name, dim=4, epoch=2, bucket=30, wordNgrams=2, thread=1, verbose=0
            )
            model.save_model(str(FOLDER / f"fasttext-{name}.bin"))
        model = fasttext.train_supervised(
            file.name, dim=4, epoch=2, bucket=300, wordNgrams=2, thread=1, verbose=0
        )
        model.quantize(file.name, retrain=False, dsub=2)
        model.save_model(str(FOLDER / "fasttext.ftz"))


def forests() -> None:
    """Two trees, then three, as joblib and pickle write them, and compressed."""
    random = np.random.default_rng(0)
    values = random.normal(size=(80, 4))
    labels = (values[:, 0] * values[:, 1] > 0).astype(int)
    forest = RandomForestClassifier(2, max_depth=3, random_state=0, warm_start=True)
    joblib.dump(forest.fit(values, labels), FOLDER / "forest-first.joblib")
    (FOLDER / "forest.pkl").write_bytes(pickle.dumps(forest))
    for name, how in (("zlib", 3), ("lz4", "lz4"), ("xz", "xz"), ("bz2", "bz2"), ("gz", "gzip")):
        joblib.dump(forest, FOLDER / f"forest.joblib.{name}", compress=how)
    forest.n_estimators = 3
    joblib.dump(forest.fit(values, labels), FOLDER / "forest-second.joblib")


def boosted() -> None:
    """Three rounds of boosting, as UBJSON."""
    values = np.random.default_rng(0).normal(size=(80, 4))
    data = xgboost.DMatrix(values, values[:, 0] * values[:, 1])
    xgboost.train({"max_depth": 2}, data, 3).save_model(FOLDER / "xgboost.ubj")


if __name__ == "__main__":
    thinc_models()
    fasttext_models()
    forests()
    boosted()
