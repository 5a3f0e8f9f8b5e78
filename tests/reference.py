"""The recurrences in NumPy, float64, one row and one time step at a time.

Written from the papers' equations, not from the JAX code; parameters are named as Flax names them.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def projection(params, gate, x, h):
    """W_i x + W_h h with whatever biases there are: x [F], h [H] -> [H]."""
    total = x @ params["i" + gate]["kernel"] + h @ params["h" + gate]["kernel"]
    for side in ("i", "h"):
        total = total + params[side + gate].get("bias", 0.0)
    return total


def lstm(params, xs, h=None, c=None):
    """Run an LSTM (Gers et al. 2000) over xs [T, F].

    Returns a dictionary of i, f, g, o, c, h, [T, H] each.
    """
    size = params["hi"]["kernel"].shape[0]
    h = np.zeros(size) if h is None else h
    c = np.zeros(size) if c is None else c
    trace = {name: [] for name in "ifgoch"}
    for x in xs:
        i = sigmoid(projection(params, "i", x, h))
        f = sigmoid(projection(params, "f", x, h))
        g = np.tanh(projection(params, "g", x, h))
        o = sigmoid(projection(params, "o", x, h))
        c = f * c + i * g
        h = o * np.tanh(c)
        for name, value in zip("ifgoch", (i, f, g, o, c, h), strict=True):
            trace[name].append(value)
    return {name: np.array(values) for name, values in trace.items()}


def gru(params, xs):
    """Run a GRU over xs [T, F]: Cho et al. (2014), but with the reset after the product."""
    h = np.zeros(params["hn"]["kernel"].shape[0])
    hs = []
    for x in xs:
        r = sigmoid(projection(params, "r", x, h))
        z = sigmoid(projection(params, "z", x, h))
        from_input = x @ params["in"]["kernel"] + params["in"]["bias"]
        from_hidden = h @ params["hn"]["kernel"] + params["hn"]["bias"]
        n = np.tanh(from_input + r * from_hidden)
        h = (1 - z) * n + z * h
        hs.append(h)
    return {"h": np.array(hs)}


def rnn(params, xs):
    """Run an Elman network (1990) over xs [T, F]."""
    h = np.zeros(params["h"]["kernel"].shape[0])
    hs = []
    for x in xs:
        h = np.tanh(projection(params, "", x, h))
        hs.append(h)
    return {"h": np.array(hs)}


REFERENCE = {"lstm": lstm, "gru": gru, "rnn": rnn}
