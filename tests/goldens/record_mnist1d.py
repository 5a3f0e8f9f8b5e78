"""Record moments of the published MNIST-1D set: `python record_mnist1d.py mnist1d.npz`.

The file has the arrays x, y, x_test, y_test of github.com/greydanus/mnist1d (Apache-2.0),
mnist1d_data.pkl at commit 7878d96, made by its authors' own code and random numbers.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from tasks.mnist1d_features import features

with np.load(sys.argv[1]) as published:
    x = np.concatenate([published["x"], published["x_test"]])
    y = np.concatenate([published["y"], published["y_test"]])
    scale = (5 / 6) / published["t"][-1]  # the set divides its times by its standard deviation
moments = np.stack([features(x[y == digit]).mean(axis=0) for digit in range(10)])
file = Path(__file__).with_name("mnist1d_published.npz")
np.savez(file, moments=moments, std=scale, count=len(x) // 10)
