"""Write train.npz and test.npz: points on a plane, each on an arm of a spiral and in a ring."""

import numpy as np

rng = np.random.default_rng(3)
for name, count in (("train", 2000), ("test", 1000)):
    radius, arm = rng.uniform(0.3, 2, count), rng.integers(0, 4, count)
    angle = arm * np.pi / 2 + 1.2 * radius + rng.normal(0, 0.25, count)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    np.savez(f"{name}.npz", x=x.astype("f4"), arm=arm, ring=(radius * 2).astype(int))
