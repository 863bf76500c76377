"""The model as its papers define it, in NumPy and float64: where the numbers in tests/data/model.npz come from.

It shares no code with the package. `python tests/oracle.py` writes the file again; tests import the recipes of weights
and inputs, and compare with the numbers.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from scipy.special import erf

DATA = Path(__file__).parent / "data" / "model.npz"


@dataclass(frozen=True)
class Case:
    """A small network: the constructor's settings."""

    sample_size: int
    hidden_size: int
    depth: int
    num_heads: int
    num_modalities: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    mlp_time_embed: bool = False
    in_channels: int = 4
    patch_size: int = 2

    def settings(self) -> dict:
        return asdict(self)


CASES = {
    "four": Case(sample_size=8, hidden_size=16, depth=4, num_heads=2, num_modalities=4),
    # an odd width, so that the timestep embedding ends in a zero, and everything that is optional
    "odd": Case(4, 15, 2, 3, num_modalities=2, mlp_ratio=2.0, qkv_bias=True, mlp_time_embed=True),
}
TIMES = np.array([1000.0, 0.0, 999.5, 1.0, 250.25, 731.0, 0.5, 12.0])


def normal(name: str, *shape: int) -> np.ndarray:
    """Standard normal numbers that a name stands for."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A value for every tensor, none of them trivial: scaled matrices, norms near one, small biases."""
    values = {}
    for name, shape in shapes.items():
        noise = normal(name, *shape)
        if name == "pos_embed":
            values[name] = 0.5 * noise
        elif len(shape) > 1:
            values[name] = noise / np.sqrt(np.prod(shape[1:]))
        else:
            values[name] = 1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise
    return {name: value.astype(np.float32) for name, value in values.items()}


def latents(case: Case, what: str, batch: int = 2) -> np.ndarray:
    """(M, B, C, H, W) float32 numbers that a name stands for."""
    size = (case.in_channels, case.sample_size, case.sample_size)
    return normal(what, case.num_modalities, batch, *size).astype(np.float32)


def timesteps(case: Case, batch: int = 2) -> np.ndarray:
    """(M, B) float32, both ends and fractions among them."""
    return np.resize(TIMES, (case.num_modalities, batch)).astype(np.float32)


def shapes_of(case: Case) -> dict[str, tuple[int, ...]]:
    """Every tensor of the network, by the names of the released checkpoint."""
    width, hidden = case.hidden_size, round(case.hidden_size * case.mlp_ratio)
    patch = case.in_channels * case.patch_size**2
    grid = (case.sample_size // case.patch_size) ** 2
    shapes: dict[str, tuple[int, ...]] = {"pos_embed": (1, case.num_modalities * (1 + grid), width)}

    def linear(name: str, rows: int, columns: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    for i in range(case.num_modalities):
        shapes[f"patch_embeds.{i}.proj.weight"] = (width, case.in_channels, case.patch_size, case.patch_size)
        shapes[f"patch_embeds.{i}.proj.bias"] = (width,)
        linear(f"decoder_preds.{i}", patch, width)
        if case.mlp_time_embed:
            linear(f"time_img_embeds.{i}.0", 4 * width, width)
            linear(f"time_img_embeds.{i}.2", width, 4 * width)
    half = case.depth // 2
    for block in [*(f"in_blocks.{i}" for i in range(half)), "mid_block", *(f"out_blocks.{i}" for i in range(half))]:
        if block.startswith("out"):
            linear(f"{block}.skip_linear", width, 2 * width)
            norm(f"{block}.norm1")
        linear(f"{block}.attn.qkv", 3 * width, width, case.qkv_bias)
        linear(f"{block}.attn.proj", width, width)
        linear(f"{block}.mlp.fc1", hidden, width)
        linear(f"{block}.mlp.fc2", width, hidden)
        norm(f"{block}.norm2")
        norm(f"{block}.norm3")
    norm("norm")
    return shapes


class Network:
    """The forward pass, from the paper's text, on float64 copies of the weights."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.w = {name: value.astype(np.float64) for name, value in weights(shapes_of(case)).items()}

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attention(self, name: str, x: np.ndarray) -> np.ndarray:
        width = x.shape[-1]
        size = width // self.case.num_heads
        query, key, value = np.split(self.linear(f"{name}.qkv", x), 3, axis=-1)
        heads = []
        for start in range(0, width, size):
            q, k, v = (part[..., start : start + size] for part in (query, key, value))
            scores = q @ k.swapaxes(-1, -2) / np.sqrt(size)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v)
        return self.linear(f"{name}.proj", np.concatenate(heads, -1))

    def block(self, name: str, x: np.ndarray) -> np.ndarray:
        x = self.norm(f"{name}.norm2", x + self.attention(f"{name}.attn", x))
        hidden = self.linear(f"{name}.mlp.fc1", x)
        return self.norm(
            f"{name}.norm3", x + self.linear(f"{name}.mlp.fc2", hidden * (1 + erf(hidden / np.sqrt(2))) / 2)
        )

    def time_token(self, i: int, times: np.ndarray) -> np.ndarray:
        width = self.case.hidden_size
        angles = times[:, None] * np.exp(-np.log(10000) * np.arange(width // 2) / (width // 2))
        token = np.concatenate([np.cos(angles), np.sin(angles), np.zeros((len(times), width % 2))], -1)
        if self.case.mlp_time_embed:
            hidden = self.linear(f"time_img_embeds.{i}.0", token)
            token = self.linear(f"time_img_embeds.{i}.2", hidden / (1 + np.exp(-hidden)))
        return token[:, None]

    def __call__(self, z: np.ndarray, times: np.ndarray) -> np.ndarray:
        """(M, B, C, H, W) latents and (M, B) timesteps to (M, B, C, H, W) noise."""
        modalities, batch, channels, side, _ = z.shape
        p, grid = self.case.patch_size, side // self.case.patch_size
        # to (M, B, row, column, C, row in patch, column in patch): what the convolution sums over comes last
        pieces = (
            z.astype(np.float64).reshape(modalities, batch, channels, grid, p, grid, p).transpose(0, 1, 3, 5, 2, 4, 6)
        )
        tokens = [self.time_token(i, times[i].astype(np.float64)) for i in range(modalities)]
        for i in range(modalities):
            kernel = self.w[f"patch_embeds.{i}.proj.weight"].reshape(self.case.hidden_size, -1)
            flat = pieces[i].reshape(batch, grid * grid, -1)
            tokens.append(flat @ kernel.T + self.w[f"patch_embeds.{i}.proj.bias"])
        x = np.concatenate(tokens, 1) + self.w["pos_embed"]
        skips = []
        for i in range(self.case.depth // 2):
            x = self.block(f"in_blocks.{i}", x)
            skips.append(x)
        x = self.block("mid_block", x)
        for i in range(self.case.depth // 2):
            joined = self.linear(f"out_blocks.{i}.skip_linear", np.concatenate([x, skips.pop()], -1))
            x = self.block(f"out_blocks.{i}", self.norm(f"out_blocks.{i}.norm1", joined))
        patches = self.norm("norm", x)[:, modalities:].reshape(batch, modalities, grid * grid, -1)
        noise = np.stack([self.linear(f"decoder_preds.{i}", patches[:, i]) for i in range(modalities)])
        noise = noise.reshape(modalities, batch, grid, grid, p, p, channels)
        return noise.transpose(0, 1, 6, 2, 4, 3, 5).reshape(z.shape)


BETAS = np.linspace(0.00085**0.5, 0.0120**0.5, 1000) ** 2
ABAR = np.concatenate([[1.0], np.cumprod(1 - BETAS)])


def log_alpha(t: float) -> float:
    return float(np.interp(t * 1000, np.arange(1001), np.concatenate([[0.0], np.cumsum(np.log(1 - BETAS)) / 2])))


def solve(network, x: np.ndarray, steps: int) -> np.ndarray:
    """DPM-Solver++ in its single-step form of order 3, written out by order."""

    def level(t: float) -> tuple[float, float, float]:
        alpha = np.exp(log_alpha(t))
        sigma = np.sqrt(1 - alpha**2)
        return alpha, sigma, np.log(alpha / sigma)

    def clean(state: np.ndarray, t: float) -> np.ndarray:
        alpha, sigma, _ = level(t)
        return (state - sigma * network(state, 1000 * t)) / alpha

    grid, at = np.linspace(1, 1e-3, steps + 1), 0
    while at < steps:
        left = steps - at
        order = 3 if left > 3 else {3: 2, 2: 2 if steps % 3 == 2 else 1, 1: 1}[left]
        times = grid[at : at + order + 1]
        (_, sigma_s, lambda_s), (alpha, sigma, lambda_t) = level(times[0]), level(times[-1])
        h = lambda_t - lambda_s
        d0 = clean(x, times[0])
        new = sigma / sigma_s * x - alpha * np.expm1(-h) * d0
        if order > 1:
            a1, s1, l1 = level(times[1])
            r1 = (l1 - lambda_s) / h
            d1 = clean(s1 / sigma_s * x - a1 * np.expm1(-r1 * h) * d0, times[1])
        if order == 2:
            new = new - alpha * np.expm1(-h) * (d1 - d0) / (2 * r1)
        if order == 3:
            a2, s2, l2 = level(times[2])
            r2 = (l2 - lambda_s) / h
            slope = r2 / r1 * a2 * (np.expm1(-r2 * h) / (r2 * h) + 1)
            x2 = s2 / sigma_s * x - a2 * np.expm1(-r2 * h) * d0 + slope * (d1 - d0)
            new = new + alpha / r2 * (np.expm1(-h) / h + 1) * (clean(x2, times[2]) - d0)
        x, at = new, at + order
    return x


def sample_noise(seed: int, sample_id: str, modality: str, purpose: str, shape: tuple[int, ...]) -> np.ndarray:
    """What seeded sampling draws: PCG64 from a 128-bit BLAKE2 hash of four words, each with its length before it."""
    words = (str(seed), sample_id, modality, purpose)
    digest = blake2b("".join(f"{len(word)}:{word}" for word in words).encode(), digest_size=16).digest()
    state = np.random.PCG64(int.from_bytes(digest, "little"))
    return np.random.Generator(state).standard_normal(shape, dtype=np.float32)


def sample_guided(
    network: Network, start: np.ndarray, given: np.ndarray, noise, steps: int, scale: float
) -> np.ndarray:
    """Generate modalities 3 and 0 (in this order in `start`) from 1, with 2 marginalised and guidance."""
    ignored, stand_in = noise

    def predict(x: np.ndarray, t: float) -> np.ndarray:
        size = x.shape[1]
        times = np.full(size, t)
        conditional = network(
            np.stack([x[1], given, ignored, x[0]]), np.stack([times, 0 * times, 0 * times + 1000, times])
        )
        free = network(
            np.stack([x[1], stand_in, ignored, x[0]]), np.stack([times, 0 * times + 1000, 0 * times + 1000, times])
        )
        mixed = (1 + scale) * conditional - scale * free
        return mixed[[3, 0]]

    return solve(predict, start.astype(np.float64), steps)


def slope(network: Network, name: str, noisy: np.ndarray, n: np.ndarray, eps: np.ndarray, h: float = 1e-5) -> float:
    """How fast the batch's loss changes as one tensor moves in a random direction, by central differences."""
    here = network.w[name]
    losses = []
    for side in (h, -h):
        network.w[name] = here + side * normal(f"direction {name}", *here.shape)
        losses.append(((network(noisy, n) - eps) ** 2).mean((2, 3, 4)).sum(0).mean())
    network.w[name] = here
    return (losses[0] - losses[1]) / (2 * h)


def numbers() -> dict[str, np.ndarray]:
    """Everything that tests compare with."""
    made = {}
    for name, case in CASES.items():
        made[f"{name}.predicted"] = Network(case)(latents(case, "x"), timesteps(case))
    case = CASES["four"]
    network = Network(case)
    size = (4, 8, 8)
    n = np.array([[1, 1000], [500, 37], [999, 2], [250, 640]])
    clean, eps = latents(case, "x0").astype(np.float64), latents(case, "eps").astype(np.float64)
    kept = ABAR[n][..., None, None, None]
    noisy = np.sqrt(kept) * clean + np.sqrt(1 - kept) * eps
    made |= {
        "abar": ABAR[[0, 1, 2, 500, 999, 1000]],
        "log_alpha": [log_alpha(t) for t in (0.0, 0.0005, 0.1234, 0.5, 1)],
    }
    made |= {"loss.n": n, "loss.parts": ((network(noisy, n) - eps) ** 2).mean((2, 3, 4))}
    made["loss.slopes"] = [slope(network, name, noisy, n, eps) for name in network.w]
    start = latents(case, "start").astype(np.float64)
    for steps in (50, 20, 10):

        def joint(x: np.ndarray, t: float) -> np.ndarray:
            return network(x, np.full(x.shape[:2], t))

        made[f"joint.{steps}"] = solve(joint, start, steps).astype(np.float32)
    drawn = {
        (purpose, i): np.stack([sample_noise(7, f"place {b}", f"m{i}", purpose, size) for b in range(2)])
        for purpose, i in (("ignored", 2), ("guidance", 1))
    }
    given = latents(case, "given")[1]
    fixed = (drawn["ignored", 2], drawn["guidance", 1])
    for scale in (0.0, 1.5):
        made[f"guided.{scale}"] = sample_guided(network, start[:2], given, fixed, 10, scale).astype(np.float32)
    made["sample_noise"] = sample_noise(7, "place 0", "dem", "start", (2, 3))
    return {name: np.asarray(value) for name, value in made.items()}


if __name__ == "__main__":
    DATA.parent.mkdir(exist_ok=True)
    np.savez_compressed(DATA, **numbers())
