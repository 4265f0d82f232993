"""Train model.safetensors: python train.py EPOCHS [arm] [ring]"""

import os
import sys

import numpy as np
from safetensors.numpy import load_file, save_file

epochs, tasks = int(sys.argv[1]), sys.argv[2:] or ["arm", "ring"]
data, name = np.load("train.npz"), "model.safetensors"
rng = np.random.default_rng(epochs)
shapes = {
    "hidden.weight": (2, 64),
    "hidden.bias": 64,
    "arm.weight": (64, 4),
    "ring.weight": (64, 4),
}
w = {key: rng.normal(0, 0.7, shape).astype("f4") for key, shape in shapes.items()}
if os.path.exists(name):
    w = load_file(name)
for _ in range(epochs):
    for batch in np.array_split(rng.permutation(2000), 40):
        x = data["x"][batch]
        for task in tasks:
            h = np.maximum(x @ w["hidden.weight"] + w["hidden.bias"], 0)
            scores = h @ w[f"{task}.weight"]
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            p[np.arange(batch.size), data[task][batch]] -= 1
            back = (p @ w[f"{task}.weight"].T) * (h > 0)
            for key, step in (
                (f"{task}.weight", h.T @ p),
                ("hidden.weight", x.T @ back),
                ("hidden.bias", back.sum(0)),
            ):
                w[key] = (w[key] - 0.1 * step / batch.size).astype("f4")
save_file(w, name)
