"""Write which examples are answered rightly, for each question: python evaluate.py MODEL FOLDER"""

import sys

import numpy as np
from safetensors.numpy import load_file

w, data = load_file(sys.argv[1]), np.load("test.npz")
h = np.maximum(data["x"] @ w["hidden.weight"] + w["hidden.bias"], 0)
for task in ("arm", "ring"):
    right = (h @ w[f"{task}.weight"]).argmax(1) == data[task]
    lines = ["id,correct", *(f"{n},{int(one)}" for n, one in enumerate(right))]
    with open(f"{sys.argv[2]}/{task}.csv", "w") as file:
        file.write("\n".join(lines) + "\n")
