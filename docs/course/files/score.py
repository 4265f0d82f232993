"""Say how often each question is answered rightly: python score.py CHECKPOINT

The last line is for `git theta merge --tune`: the worse of both, and the number of examples.
"""

import sys

import numpy as np
from safetensors.numpy import load_file

w, data = load_file(sys.argv[1]), np.load("test.npz")
h = np.maximum(data["x"] @ w["hidden.weight"] + w["hidden.bias"], 0)
right = [((h @ w[f"{task}.weight"]).argmax(1) == data[task]).mean() for task in ("arm", "ring")]
print(f"arm {right[0]:.3f}   ring {right[1]:.3f}")
print(min(right), 1000)
