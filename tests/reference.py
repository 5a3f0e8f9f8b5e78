"""The recurrences in NumPy, float64, one row and one time step at a time.

Written from the papers' equations, not from the JAX code; parameters are named as Flax names them.
Every function takes a cell's parameters and xs [T, F], the state to start from, [H], and the cell's
options. It returns a dictionary of every gate and state by name, [T, H] each. A `mask` [H] is what
multiplies h where gates see it: Gal and Ghahramani (2016), eq. 7.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.maximum(x, 0)


def identity(x):
    return x


def positive(x):
    """Feng et al. (2024), appendix B, their g."""
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def affine(params, name, x):
    """W x, and + b where there is a b."""
    return x @ params[name]["kernel"] + params[name].get("bias", 0.0)


def normalized(a, scale, bias=0.0):
    """Ba et al. (2016), eq. 3 and 4, with Flax's epsilon."""
    return (a - a.mean()) / np.sqrt(((a - a.mean()) ** 2).mean() + 1e-6) * scale + bias


def over_time(step, xs, **state):
    """Go through xs [T, F]: a step takes x and the states, and gives states and gates by name."""
    trace = []
    for x in xs:
        trace.append(step(x, **state))
        state = {name: trace[-1][name] for name in state}
    return {name: np.array([values[name] for values in trace]) for name in trace[0]}


def lstm(
    params,
    xs,
    h=0.0,
    c=0.0,
    *,
    mask=1.0,
    peepholes=False,
    layer_norm=False,
    projection_size=None,
    coupled_gates=False,
    cell_clip=np.inf,
):
    """Gers et al. (2000), with the peepholes of Gers et al. (2002) = Graves (2013), eq. 7 to 11.

    With layer normalization Ba et al. (2016), eq. 20 to 22; with a projection and clipping Sak et
    al. (2014), eq. 1 to 7; with coupled gates Greff et al. (2017), section 3, CIFG.
    """
    outputs, size = params["hi"]["kernel"].shape
    gates = "igo" if coupled_gates else "ifgo"
    peep = {gate: params["p" + gate] if peepholes else 0.0 for gate in gates if gate != "g"}

    def step(x, h, c):
        from_x = np.concatenate([affine(params, "i" + gate, x) for gate in gates])
        from_h = np.concatenate([affine(params, "h" + gate, mask * h) for gate in gates])
        if layer_norm:
            from_x = normalized(from_x, **params["norm_i"])
            from_h = normalized(from_h, **params["norm_h"])
        sums = dict(zip(gates, np.split(from_x + from_h, len(gates)), strict=True))
        i = sigmoid(sums["i"] + peep["i"] * c)
        f = 1 - i if coupled_gates else sigmoid(sums["f"] + peep["f"] * c)
        g = np.tanh(sums["g"])
        c = np.clip(f * c + i * g, -cell_clip, cell_clip)
        o = sigmoid(sums["o"] + peep["o"] * c)
        h = o * np.tanh(normalized(c, **params["norm_c"]) if layer_norm else c)
        if projection_size:
            h = h @ params["projection"]["kernel"]
        return {"i": i, "f": f, "g": g, "o": o, "c": c, "h": h}

    return over_time(step, xs, c=np.zeros(size) + c, h=np.zeros(outputs) + h)


def cifg(params, xs, h=0.0, c=0.0, *, mask=1.0):
    """Greff et al. (2017)."""
    return lstm(params, xs, h, c, mask=mask, coupled_gates=True)


def gru(params, xs, h=0.0, *, mask=1.0, reset_after=True):
    """Cho et al. (2014), eq. 5 to 8; reset after the product or before."""
    size = params["hn"]["kernel"].shape[0]

    def step(x, h):
        r = sigmoid(affine(params, "ir", x) + affine(params, "hr", mask * h))
        z = sigmoid(affine(params, "iz", x) + affine(params, "hz", mask * h))
        if reset_after:
            from_h = r * affine(params, "hn", mask * h)
        else:
            from_h = (r * mask * h) @ params["hn"]["kernel"]
        n = np.tanh(affine(params, "in", x) + from_h)
        return {"r": r, "z": z, "n": n, "h": (1 - z) * n + z * h}

    return over_time(step, xs, h=np.zeros(size) + h)


def rnn(params, xs, h=0.0, *, mask=1.0, activation_fn=np.tanh):
    """Elman (1990)."""
    size = params["h"]["kernel"].shape[0]

    def step(x, h):
        return {"h": activation_fn(affine(params, "i", x) + affine(params, "h", mask * h))}

    return over_time(step, xs, h=np.zeros(size) + h)


def irnn(params, xs, h=0.0, *, mask=1.0):
    """Le, Jaitly and Hinton (2015)."""
    return rnn(params, xs, h, mask=mask, activation_fn=relu)


def mingru(params, xs, h=0.0, *, activation_fn=identity):
    """Feng et al. (2024), section 3.1."""

    def step(x, h):
        z = sigmoid(affine(params, "iz", x))
        n = activation_fn(affine(params, "in", x))
        return {"z": z, "n": n, "h": (1 - z) * h + z * n}

    return over_time(step, xs, h=h)


def minlstm(params, xs, h=0.0, *, activation_fn=identity):
    """Feng et al. (2024), section 3.2; f and i are the scaled ones."""

    def step(x, h):
        f = sigmoid(affine(params, "if", x))
        i = sigmoid(affine(params, "ii", x))
        f, i = f / (f + i), i / (f + i)
        g = activation_fn(affine(params, "ig", x))
        return {"f": f, "i": i, "g": g, "h": f * h + i * g}

    return over_time(step, xs, h=h)


def indrnn(params, xs, h=0.0, *, mask=1.0, recurrent_clip=np.inf, activation_fn=relu):
    """Li et al. (2018), eq. 2; a bound of |u| as in its section 3.2."""
    u = np.clip(params["u"], -recurrent_clip, recurrent_clip)

    def step(x, h):
        return {"h": activation_fn(affine(params, "i", x) + u * mask * h)}

    return over_time(step, xs, h=h + 0 * u)


def urlstm(params, xs, h=0.0, c=0.0, *, mask=1.0, refine_gate=True, uniform_gate_init=True):
    """Gu et al. (2020), section 3: the effective forget gate e lies between f^2 and 1-(1-f)^2.

    How b starts does not change the equations.
    """
    b = params["forget_bias"]

    def step(x, h, c):
        gates = "frgo" if refine_gate else "fgo"
        sums = {g: affine(params, "i" + g, x) + affine(params, "h" + g, mask * h) for g in gates}
        trace = {"f": (f := sigmoid(sums["f"] + b)), "e": f}
        if refine_gate:
            r = sigmoid(sums["r"] - b)
            trace |= {"r": r, "e": r * (1 - (1 - f) ** 2) + (1 - r) * f**2}
        g, o = np.tanh(sums["g"]), sigmoid(sums["o"])
        c = trace["e"] * c + (1 - trace["e"]) * g
        return trace | {"g": g, "o": o, "c": c, "h": o * np.tanh(c)}

    return over_time(step, xs, h=h + 0 * b, c=c + 0 * b)


def lru(params, xs, re=0.0, im=0.0, *, state_size=None):
    """Orvieto et al. (2023), eq. 5 to 8; what multiplies x_k is a column of B there, a row here."""
    eigenvalues = np.exp(-np.exp(params["nu_log"]) + 1j * np.exp(params["theta_log"]))
    gamma = np.exp(params["gamma_log"])
    kernel = {name: params[name]["kernel"] for name in ("ib_re", "ib_im", "c_re", "c_im", "id")}
    b, c = kernel["ib_re"] + 1j * kernel["ib_im"], kernel["c_re"] + 1j * kernel["c_im"]
    assert state_size in (None, len(gamma))

    def step(x, re, im):
        s = eigenvalues * (re + 1j * im) + gamma * (x @ b)
        return {"re": s.real, "im": s.imag, "h": (s @ c).real + x @ kernel["id"]}

    return over_time(step, xs, re=re, im=im)


def blocks(params, name, x):
    """A product with a block-diagonal matrix, and + b where there is a b."""
    kernel = params[name]["kernel"]
    parts = [part @ block for part, block in zip(np.split(x, len(kernel)), kernel, strict=True)]
    return np.concatenate(parts) + params[name].get("bias", 0.0)


def rglru(params, xs, h=0.0, *, num_heads=1, project_inputs=True):
    """De et al. (2024), eq. 1 to 4, after a linear layer."""
    assert len(params["gate_r"]["kernel"]) == num_heads

    def step(x, h):
        u = affine(params, "i", x) if project_inputs else x
        r, z = sigmoid(blocks(params, "gate_r", u)), sigmoid(blocks(params, "gate_z", u))
        a = sigmoid(params["lambda"]) ** (8 * r)
        return {"r": r, "z": z, "a": a, "h": a * h + np.sqrt(1 - a**2) * (z * u)}

    return over_time(step, xs, h=h)


def slstm(params, xs, c=0.0, n=0.0, m=0.0, h=0.0, *, mask=1.0, num_heads=1, forget_gate="sigmoid"):
    """Beck et al. (2024), eq. 8 to 17; without a step before, m is minus infinity."""
    assert len(params["hi"]["kernel"]) == num_heads
    zeros = np.zeros(params["ii"]["kernel"].shape[1])

    def step(x, c, n, m, h):
        sums = {g: affine(params, "i" + g, x) + blocks(params, "h" + g, mask * h) for g in "ifzo"}
        z, o = np.tanh(sums["z"]), sigmoid(sums["o"])
        log_f = np.log(sigmoid(sums["f"])) if forget_gate == "sigmoid" else sums["f"]
        before = np.where(n == 0, -np.inf, m)
        m = np.maximum(log_f + before, sums["i"])
        i, f = np.exp(sums["i"] - m), np.exp(log_f + before - m)
        c, n = f * c + i * z, f * n + i
        return {"i": i, "f": f, "z": z, "o": o, "c": c, "n": n, "m": m, "h": o * c / n}

    return over_time(step, xs, c=c + zeros, n=n + zeros, m=m + zeros, h=h + zeros)


def in_heads(params, name, x, heads):
    """A product with x, split among the heads: [heads, H / heads]."""
    return affine(params, name, x).reshape(heads, -1)


def mlstm(params, xs, c=0.0, n=0.0, m=0.0, *, num_heads=1, forget_gate="sigmoid"):
    """Beck et al. (2024), eq. 19 to 27 with 15 to 17; C there maps keys to values, here C^T."""
    size = params["iq"]["kernel"].shape[1] // num_heads

    def step(x, c, n, m):
        q, k, v = (in_heads(params, "i" + name, x, num_heads) for name in "qkv")
        k, o = k / np.sqrt(size), sigmoid(affine(params, "io", x))
        log_i, log_f = affine(params, "gate_i", x), affine(params, "gate_f", x)
        log_f = np.log(sigmoid(log_f)) if forget_gate == "sigmoid" else log_f
        before, m = m, np.maximum(log_f + m, log_i)
        i, f = np.exp(log_i - m), np.exp(log_f + before - m)
        c, n, h = np.array(c), np.array(n), np.zeros((num_heads, size))
        for head in range(num_heads):
            c[head] = f[head] * c[head] + i[head] * np.outer(k[head], v[head])
            n[head] = f[head] * n[head] + i[head] * k[head]
            h[head] = c[head].T @ q[head] / max(abs(n[head] @ q[head]), np.exp(-m[head]))
        return {"i": i, "f": f, "o": o, "c": c, "n": n, "m": m, "h": o * h.ravel()}

    zeros = np.zeros((num_heads, size, size))
    return over_time(step, xs, c=c + zeros, n=n + zeros[0], m=m + zeros[:, 0, 0])


def deltanet(params, xs, s=0.0, *, num_heads=1, negative_eigenvalues=False, gated=False):
    """Yang et al. (2024), section 2.2, beta from Grazzi et al. (2025); S there is S^T here."""
    size = params["iq"]["kernel"].shape[1] // num_heads

    def silu(a):
        return a * sigmoid(a)

    def unit(a):
        return a / np.sqrt((a**2).sum(-1, keepdims=True) + 1e-6)

    def step(x, s):
        q, k, v = (silu(in_heads(params, "i" + name, x, num_heads)) for name in "qkv")
        q, k, beta = unit(q), unit(k), sigmoid(affine(params, "gate_b", x))
        beta = 2 * beta if negative_eigenvalues else beta
        trace, a = {}, np.ones(num_heads)
        if gated:
            steps = np.log1p(np.exp(affine(params, "gate_a", x) + params["dt_bias"]))
            trace["a"] = a = np.exp(-np.exp(params["A_log"]) * steps)
        s, h = np.array(s), np.zeros((num_heads, size))
        for head in range(num_heads):
            rotated = np.eye(size) - beta[head] * np.outer(k[head], k[head])
            s[head] = a[head] * rotated @ s[head] + beta[head] * np.outer(k[head], v[head])
            h[head] = s[head].T @ q[head]
        return trace | {"beta": beta, "s": s, "h": h.ravel()}

    return over_time(step, xs, s=s + np.zeros((num_heads, size, size)))


def gateddeltanet(params, xs, s=0.0, **options):
    """Yang, Kautz and Hatamizadeh (2024), eq. 10."""
    return deltanet(params, xs, s, gated=True, **options)


REFERENCE = {
    "lstm": lstm,
    "cifg": cifg,
    "gru": gru,
    "rnn": rnn,
    "irnn": irnn,
    "minlstm": minlstm,
    "mingru": mingru,
    "indrnn": indrnn,
    "urlstm": urlstm,
    "lru": lru,
    "rglru": rglru,
    "slstm": slstm,
    "mlstm": mlstm,
    "deltanet": deltanet,
    "gateddeltanet": gateddeltanet,
}
"""The equations of every name in `CELLS`."""
