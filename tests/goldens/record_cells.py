# pyright: reportMissingImports=false
"""Record what public implementations of the newer cells compute, into `cells_NAME.npz`.

    python tests/goldens/record_cells.py NAME [FILE]

NAME is a key of `RECORDERS`. FILE is the implementation's source file, for those that no package
has; tests/goldens/README.md says where it is from. All is in float64 on the CPU, unless the
implementation computes in float32.

Keys: `versions`, the implementation and its version; `case/inputs` [B, T, F]; weights and states by
the implementation's own names, the states before the first step as `case/h_0` and so on, those
after the last as `case/h_n`; `case/outputs` [B, T, H]; `case/cotangent`, a random R of the outputs'
shape; and `case/grad/NAME`, the gradient of the sum of R * outputs with respect to NAME.
"""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

B, T, F, H, HEADS = 3, 6, 4, 6, 2
rng = np.random.default_rng(20)

Arrays = dict[str, Any]


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return scale * rng.standard_normal(shape)


def source(path: str) -> Any:
    """The module of a source file outside any package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def version(*packages: str) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def torch_case(run: Callable[..., Any], wanted: Arrays) -> Arrays:
    """Results of `run(**wanted)` in PyTorch, and the gradients of its outputs' weighted sum."""
    import torch

    tensors = {name: torch.tensor(value).requires_grad_() for name, value in wanted.items()}
    results = run(**tensors)
    cotangent = torch.tensor(normal(*results["outputs"].shape)).to(results["outputs"].dtype)
    total = (results["outputs"] * cotangent).sum()
    gradients = torch.autograd.grad(total, list(tensors.values()))
    named = {f"grad/{name}": g for name, g in zip(tensors, gradients, strict=True)}
    record = results | {"cotangent": cotangent} | named
    return wanted | {name: value.detach().numpy() for name, value in record.items()}


def jax_case(run: Callable[..., Any], wanted: Arrays) -> Arrays:
    """The same in JAX."""
    import jax

    arrays = jax.tree.map(jax.numpy.asarray, wanted)
    results, back = jax.vjp(lambda arrays: run(**arrays)["outputs"], arrays)
    cotangent = normal(*results.shape).astype(results.dtype)
    (gradients,) = back(jax.numpy.asarray(cotangent))
    record = run(**arrays) | {"cotangent": cotangent}
    record |= {f"grad/{name}": gradient for name, gradient in gradients.items()}
    return wanted | {name: np.asarray(value) for name, value in record.items()}


def indrnn(file: str) -> dict[str, Arrays]:
    """The authors' recurrent part, after a linear layer as they use it.

    Their training script clips the recurrent weights, which the case `clipped` does as well.
    """
    import torch

    layer = source(file).IndRNN_onlyrecurrent(H, recurrent_init=torch.nn.init.ones_).double()

    def run(inputs, weight_ih, bias_ih, weight_hh, h_0, bound=None):
        if bound is not None:
            weight_hh = weight_hh.clamp(-bound, bound)
        driven = (inputs @ weight_ih.T + bias_ih).transpose(0, 1)
        weights = {"indrnn_cell.weight_hh": weight_hh}
        outputs = torch.func.functional_call(layer, weights, (driven, h_0))
        return {"outputs": outputs.transpose(0, 1), "h_n": outputs[-1]}

    wanted = {
        "inputs": normal(B, T, F),
        "weight_ih": normal(H, F),
        "bias_ih": normal(H),
        "weight_hh": normal(H),
        "h_0": np.abs(normal(B, H)),
    }
    clipped = torch_case(lambda **tensors: run(**tensors, bound=0.7), wanted)
    return {"plain": torch_case(run, wanted), "clipped": clipped}


def urlstm(file: str) -> dict[str, Arrays]:
    """A public reimplementation from the paper's pseudo-code; the authors' own is not public."""
    import torch

    cell = source(file).URLSTMCell(F, H).double()
    names = [name for name, _ in cell.named_parameters()]

    def run(inputs, h_0, c_0, **weights):
        state, outputs = (h_0, c_0), []
        named = {name: weights[name] for name in names}
        for x in inputs.unbind(1):
            output, state = torch.func.functional_call(cell, named, (x, state))
            outputs.append(output)
        return {"outputs": torch.stack(outputs, 1), "h_n": state[0], "c_n": state[1]}

    wanted = {name: normal(*weight.shape) for name, weight in cell.named_parameters()}
    wanted |= {"inputs": normal(B, T, F), "h_0": normal(B, H), "c_0": normal(B, H)}
    return {"plain": torch_case(run, wanted)}


def lru(file: str) -> dict[str, Arrays]:
    """A public reimplementation, linked by the paper's authors; its D is diagonal, so F = H."""
    import jax

    jax.config.update("jax_enable_x64", True)
    layer = source(file).LRU(d_hidden=5, d_model=H)
    variables = layer.init(jax.random.key(0), np.zeros((T, H)))["params"]

    def run(inputs, **weights):
        apply = jax.vmap(lambda x: layer.apply({"params": weights}, x))
        return {"outputs": apply(inputs)}

    wanted = {name: normal(*weight.shape) for name, weight in variables.items()}
    return {"plain": jax_case(run, wanted | {"inputs": normal(B, T, H)})}


def rglru() -> dict[str, Arrays]:
    """The authors' layer; its scan is in float32. F = H, since it projects nothing."""
    import jax
    import jax.numpy as jnp
    from recurrentgemma.jax import layers

    layer = layers.RGLRU(width=H, num_heads=HEADS)
    positions = jnp.tile(jnp.arange(1, T + 1), (B, 1))  # not from 0, where the carry is dropped
    inputs = jnp.zeros((B, T, H))
    variables = layer.init(jax.random.key(0), inputs, positions)["params"]
    flat = {f"{a}.{b}": w for a in ("a_gate", "input_gate") for b, w in variables[a].items()}

    def run(inputs, a_param, h_0, **weights):
        params: Arrays = {"a_param": a_param}
        for name, weight in weights.items():
            outer, inner = name.split(".")
            params.setdefault(outer, {})[inner] = weight
        outputs, last = layer.apply({"params": params}, inputs, positions, h_0)
        return {"outputs": outputs, "h_n": last}

    wanted = {name: normal(*weight.shape) for name, weight in flat.items()}
    wanted |= {"a_param": normal(H), "inputs": normal(B, T, H), "h_0": normal(B, H)}
    return {"plain": jax_case(run, {k: v.astype(np.float32) for k, v in wanted.items()})}


def slstm() -> dict[str, Arrays]:
    """The authors' plain PyTorch, from zero states and from others; gates in the order i, f, z, o.

    The kernel is [heads, 4 * units of a head, units of a head], what their layer makes of it.
    """
    import torch
    from xlstm.blocks.slstm.src.vanilla import slstm_forward, slstm_pointwise_function_registry

    def run(inputs, kernel, recurrent, bias, states):
        pointwise = slstm_pointwise_function_registry["slstm"]
        trace, last, _ = slstm_forward(
            (inputs @ kernel).transpose(0, 1), states, recurrent, bias, pointwise
        )
        results = {"outputs": trace[0, 1:].transpose(0, 1)}
        return results | dict(zip(("h_n", "c_n", "n_n", "m_n"), last, strict=True))

    wanted = {
        "inputs": normal(B, T, F),
        "kernel": normal(F, 4 * H),
        "recurrent": normal(HEADS, 4 * H // HEADS, H // HEADS),
        "bias": normal(4 * H),
    }
    states = normal(4, B, H)
    states[2] = 0.5 + np.abs(states[2])  # the normalizer
    zeros = torch.zeros(4, B, H, dtype=torch.float64)  # states of no step, so without a gradient
    return {
        "from_zero": torch_case(lambda **tensors: run(**tensors, states=zeros), wanted),
        "from_states": torch_case(run, wanted | {"states": states}),
    }


def in_heads(x: Any) -> Any:
    """[B, T, H] -> [B, heads, T, H / heads]."""
    return x.reshape(B, T, HEADS, -1).transpose(1, 2)


def together(x: Any) -> Any:
    """[B, heads, T, H / heads] -> [B, T, H]."""
    return x.transpose(1, 2).reshape(B, T, H)


def mlstm() -> dict[str, Arrays]:
    """The authors' recurrent step in plain PyTorch; eps, which the paper lacks, is 0."""
    import torch
    from xlstm.blocks.mlstm.backends import recurrent_step_stabilized_simple

    def run(inputs, w_q, w_k, w_v, w_o, w_i, w_f, b_i, b_f, c_0, n_0, m_0):
        q, k, v = (in_heads(inputs @ weight) for weight in (w_q, w_k, w_v))
        gates = [inputs @ w_i + b_i, inputs @ w_f + b_f]  # [B, T, heads]
        states = c_0, n_0[..., None], m_0[..., None, None]
        outputs = []
        for t in range(T):
            now = (part[:, :, t : t + 1].clone() for part in (q, k, v))
            i, f = (gate[:, t, :, None, None] for gate in gates)
            h, states = recurrent_step_stabilized_simple(*states, *now, i, f, eps=0.0)
            outputs.append(h)
        c, n, m = states
        outputs = together(torch.cat(outputs, 2)) * torch.sigmoid(inputs @ w_o)
        return {"outputs": outputs, "c_n": c, "n_n": n[..., 0], "m_n": m[..., 0, 0]}

    size = H // HEADS
    wanted = {f"w_{name}": normal(F, H) for name in "qkvo"}
    wanted |= {f"w_{name}": normal(F, HEADS) for name in "if"}
    wanted |= {f"b_{name}": normal(HEADS) for name in "if"}
    wanted |= {"c_0": normal(B, HEADS, size, size), "n_0": normal(B, HEADS, size)}
    wanted |= {"m_0": normal(B, HEADS), "inputs": normal(B, T, F)}
    return {"plain": torch_case(run, wanted)}


def projected(inputs, w_q, w_k, w_v, w_b):
    """What DeltaNet's layer makes of its inputs: q, k, v [B, heads, T, D] and beta's logit."""
    from torch.nn import functional

    q, k, v = (in_heads(functional.silu(inputs @ weight)) for weight in (w_q, w_k, w_v))
    q, k = (x * ((x * x).sum(-1, keepdim=True) + 1e-6) ** -0.5 for x in (q, k))
    return q, k, v, (inputs @ w_b).transpose(1, 2)


def delta_weights() -> Arrays:
    """In float32, in which the implementations compute."""
    wanted = {f"w_{name}": normal(F, H) for name in "qkv"} | {"w_b": normal(F, HEADS)}
    wanted |= {"s_0": normal(B, HEADS, H // HEADS, H // HEADS), "inputs": normal(B, T, F)}
    return {name: value.astype(np.float32) for name, value in wanted.items()}


def deltanet(file: str) -> dict[str, Arrays]:
    """The plain recurrence of flash-linear-attention, which divides q by the root of its size."""
    import torch

    recurrence = source(file).delta_rule_recurrence

    def run(inputs, s_0, most=1, **weights):
        q, k, v, logit = projected(inputs, **weights)
        outputs, last = recurrence(q * q.shape[-1] ** 0.5, k, v, most * torch.sigmoid(logit), s_0)
        return {"outputs": together(outputs), "s_n": last}

    wanted = delta_weights()
    negative = torch_case(lambda **tensors: run(**tensors, most=2), wanted)
    return {"plain": torch_case(run, wanted), "negative": negative}


def gateddeltanet(file: str) -> dict[str, Arrays]:
    """The plain gated recurrence of flash-linear-attention, whose axes are [B, T, heads, D]."""
    import torch

    recurrence = source(file).naive_recurrent_gated_delta_rule

    def run(inputs, s_0, w_a, A_log, dt_bias, most=1, **weights):  # noqa: N803
        q, k, v, logit = (x.transpose(1, 2) for x in projected(inputs, **weights))
        step = torch.nn.functional.softplus(inputs @ w_a + dt_bias)
        beta, log_decay = most * torch.sigmoid(logit), -A_log.exp() * step
        outputs, last = recurrence(q, k, v, beta, log_decay, 1.0, s_0, True)
        return {"outputs": outputs.reshape(B, T, H), "s_n": last}

    more = {"w_a": normal(F, HEADS), "A_log": normal(HEADS), "dt_bias": normal(HEADS)}
    wanted = delta_weights() | {name: value.astype(np.float32) for name, value in more.items()}
    negative = torch_case(lambda **tensors: run(**tensors, most=2), wanted)
    return {"plain": torch_case(run, wanted), "negative": negative}


RECORDERS: dict[str, tuple[Callable[..., dict[str, Arrays]], str]] = {
    "indrnn": (
        indrnn,
        "IndRNN_onlyrecurrent.py of github.com/Sunnydreamrain/IndRNN_pytorch at 9b9cb4cd6b42",
    ),
    "urlstm": (urlstm, "ur_lstm/ur_lstm.py of github.com/r0mainK/ur-lstm at ffda3fb817f8"),
    "lru": (lru, "lru/model.py of github.com/NicolasZucchet/minimal-LRU at bbd71b1104c3"),
    "rglru": (rglru, "recurrentgemma 1.0.1"),
    "slstm": (slstm, "xlstm 2.0.6"),
    "mlstm": (mlstm, "xlstm 2.0.6"),
    "deltanet": (deltanet, "fla/ops/delta_rule/naive.py of fla-core 0.6.0"),
    "gateddeltanet": (gateddeltanet, "fla/ops/gated_delta_rule/naive.py of fla-core 0.6.0"),
}


def main(name: str, *files: str) -> None:
    """Compute the cases and write the file."""
    recorder, origin = RECORDERS[name]
    cases = recorder(*files)
    used = [package for package in ("torch", "jax", "numpy") if package in sys.modules]
    arrays = {
        f"{case}/{key}": value for case, record in cases.items() for key, value in record.items()
    }
    path = Path(__file__).parent / f"cells_{name}.npz"
    origin = f"{origin}; {version(*used)}"
    np.savez_compressed(path, versions=np.array(origin), **arrays)
    print(f"{origin}: {len(arrays)} arrays, {path.stat().st_size} bytes in {path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
