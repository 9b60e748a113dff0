"""One step of D2RL's image level, written a second time without its modules, and the check of a recorded one.

`reference` takes weights under the names of the recorded arrays (`unit_step_rgb3_ir1`: a = visible, b = infrared) and
plain functions only. `check` compares a D2RL method with any such file: made by `reference`, or recorded from UNIT.

    recorded                                              here
    gen_M.enc.model.{0,1,2}.conv.*                        embedder.translators.encoders.M.{0,1,2}.conv.*
    gen_M.enc.model.3.model.I.model.{0,1}.conv.*          embedder.translators.encoders.M.3.I.{first,second}.conv.*
    gen_M.dec.model.0.model.I.model.{0,1}.conv.*          embedder.translators.generators.M.0.I.{first,second}.conv.*
    gen_M.dec.model.{2,4}.conv.*                          embedder.translators.generators.M.{1,2}.block.conv.*
    gen_M.dec.model.{2,4}.norm.{gamma,beta}     embedder.translators.generators.M.{1,2}.block.norm.{weight,bias}
    gen_M.dec.model.5.conv.*                              embedder.translators.generators.M.3.conv.*
    dis_M.cnns.S.I.conv.*    (strided)                    discriminators.M.networks.S.I.conv.*
    dis_M.cnns.S.I.*         (the last, 1x1)              discriminators.M.networks.S.I.*
    gen/x_a_recon, x_b_recon                              RoundTrip.rebuilt
    gen/x_ab, x_ba                                        RoundTrip.translated (of a, of b)
    gen/x_aba, x_bab                                      RoundTrip.cycled
    noise_dis/0, /1                                       noise[0], noise[1] of critic_losses
    noise_gen/0, /1, /2 (of ba), /3 (of ab)               noise[0], noise[1], noise[3], noise[2] of image_losses

with M = a: 0, b: 1. The left names were not seen: they are those of the same family of code in the recorded arrays of
Hi-CMD. Where a recorded file differs, NAMES and MADE below are what to change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.methods.d2rl import D2RL
from vireid.training.optim import Optimizers

PART = ("first", "second")
WEIGHT = {"gamma": "weight", "beta": "bias"}
T = "embedder.translators."
NAMES = (  # pattern of a recorded name, our name from its groups
    (r"gen_(.)\.enc\.model\.([012])\.conv\.(\w+)", lambda m, i, p: f"{T}encoders.{m}.{i}.conv.{p}"),
    (
        r"gen_(.)\.enc\.model\.3\.model\.(\d+)\.model\.([01])\.conv\.(\w+)",
        lambda m, i, j, p: f"{T}encoders.{m}.3.{i}.{PART[int(j)]}.conv.{p}",
    ),
    (
        r"gen_(.)\.dec\.model\.0\.model\.(\d+)\.model\.([01])\.conv\.(\w+)",
        lambda m, i, j, p: f"{T}generators.{m}.0.{i}.{PART[int(j)]}.conv.{p}",
    ),
    (
        r"gen_(.)\.dec\.model\.([24])\.conv\.(\w+)",
        lambda m, i, p: f"{T}generators.{m}.{int(i) // 2}.block.conv.{p}",
    ),
    (
        r"gen_(.)\.dec\.model\.([24])\.norm\.(\w+)",
        lambda m, i, p: f"{T}generators.{m}.{int(i) // 2}.block.norm.{WEIGHT[p]}",
    ),
    (r"gen_(.)\.dec\.model\.5\.conv\.(\w+)", lambda m, p: f"{T}generators.{m}.3.conv.{p}"),
    (r"dis_(.)\.cnns\.(\d+)\.(\d+)\.(conv\.\w+|\w+)", lambda m, s, i, p: f"discriminators.{m}.networks.{s}.{i}.{p}"),
)
MADE = {
    "x_a_recon": ("rebuilt", 0),
    "x_b_recon": ("rebuilt", 1),
    "x_ab": ("translated", 0),
    "x_ba": ("translated", 1),
    "x_aba": ("cycled", 0),
    "x_bab": ("cycled", 1),
}
WIDTH, BLOCKS, SCALES, LAYERS = 4, 2, 2, 2


def our_name(recorded: str) -> str:
    for pattern, name in NAMES:
        if found := re.fullmatch(pattern, recorded):
            modality, *rest = found.groups()
            return name("ab".index(modality), *rest)
    raise KeyError(f"no pattern of NAMES fits the recorded parameter {recorded}")


def small(**settings: object) -> D2RL:
    """The method at the sizes of the recorded step, float64, with UNIT's rates of the image level."""
    torch.manual_seed(0)
    sizes = {"image_width": WIDTH, "image_blocks": BLOCKS, "scales": SCALES}
    sizes |= {"discriminator_width": WIDTH, "discriminator_layers": LAYERS, "width": 4, "blocks": (1, 1, 1, 1)}
    return D2RL(4, (1, 2), **{**sizes, **settings}).double().train()  # pyright: ignore[reportArgumentType]


# --- the step a second time -------------------------------------------------------------------------------------------


class Reference:
    """Encoders, generators and discriminators over a dict of weights."""

    def __init__(self, w: Mapping[str, Tensor]) -> None:
        self.w = w

    def conv(self, name: str, x: Tensor, pad: int, stride: int = 1) -> Tensor:
        x = F.pad(x, (pad,) * 4, mode="reflect") if pad else x
        return F.conv2d(x, self.w[name + ".weight"], self.w[name + ".bias"], stride)

    def blocks(self, name: str, x: Tensor) -> Tensor:
        for i in range(BLOCKS):
            y = instance(self.conv(f"{name}.{i}.model.0.conv", x, 1)).clamp(min=0)
            x = x + instance(self.conv(f"{name}.{i}.model.1.conv", y, 1))
        return x

    def encode(self, m: str, x: Tensor) -> Tensor:
        name = f"gen_{m}.enc.model."
        for i, (pad, stride) in enumerate(((3, 1), (1, 2), (1, 2))):
            x = instance(self.conv(f"{name}{i}.conv", x, pad, stride)).clamp(min=0)
        return self.blocks(name + "3.model", x)

    def decode(self, m: str, z: Tensor) -> Tensor:
        name = f"gen_{m}.dec.model."
        x = self.blocks(name + "0.model", z)
        for i in (2, 4):
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = self.conv(f"{name}{i}.conv", x, 2)
            flat = x.reshape(len(x), -1)
            mean = flat.sum(1) / flat.shape[1]
            std = (((flat - mean[:, None]) ** 2).sum(1) / (flat.shape[1] - 1)).sqrt()
            x = (x - mean.view(-1, 1, 1, 1)) / (std.view(-1, 1, 1, 1) + 1e-5)
            x = x * self.w[f"{name}{i}.norm.gamma"].view(1, -1, 1, 1) + self.w[f"{name}{i}.norm.beta"].view(1, -1, 1, 1)
            x = x.clamp(min=0)
        return torch.tanh(self.conv(name + "5.conv", x, 3))

    def judge(self, m: str, x: Tensor) -> list[Tensor]:
        found = []
        for s in range(SCALES):
            y = x
            for i in range(LAYERS):
                y = self.conv(f"dis_{m}.cnns.{s}.{i}.conv", y, 1, 2)
                y = torch.where(y > 0, y, 0.2 * y)
            found.append(self.conv(f"dis_{m}.cnns.{s}.{LAYERS}", y, 0))
            kernel = torch.ones(1, 1, 3, 3, dtype=x.dtype)
            count = F.conv2d(torch.ones_like(x[:, :1]), kernel, stride=2, padding=1)
            x = torch.cat([F.conv2d(x[:, [c]], kernel, stride=2, padding=1) / count for c in range(x.shape[1])], 1)
        return found


def instance(x: Tensor) -> Tensor:
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean((2, 3), keepdim=True) + 1e-5).sqrt()


def reference(w: dict[str, Tensor], x_a: Tensor, x_b: Tensor, noise: list[Tensor]) -> dict[str, np.ndarray]:
    """Arrays as recorded: of the discriminators' phase, then of the generators' against the stepped discriminators."""
    w = {name: value.clone().requires_grad_() for name, value in w.items()}
    found = {"x_a": x_a, "x_b": x_b, **{f"w/{name}": value for name, value in w.items()}}
    found |= {f"noise_dis/{i}": n for i, n in enumerate(noise[:2])} | {
        f"noise_gen/{i}": n for i, n in enumerate(noise[2:])
    }
    net = Reference(w)
    with torch.no_grad():
        x_ab = net.decode("b", net.encode("a", x_a) + noise[0])
        x_ba = net.decode("a", net.encode("b", x_b) + noise[1])
    total = sum(
        (fake**2).mean() + ((real - 1) ** 2).mean()
        for m, made, x in (("a", x_ba, x_a), ("b", x_ab, x_b))
        for fake, real in zip(net.judge(m, made), net.judge(m, x), strict=True)
    )
    found["loss/dis_total"] = total
    names = [name for name in w if name.startswith("dis_")]
    for name, gradient in zip(names, torch.autograd.grad(total, [w[n] for n in names]), strict=True):
        found[f"grad/{name}"] = gradient
        decayed = gradient + 1e-4 * w[name]  # the first step of Adam moves by the rate times g / (|g| + eps)
        w[name] = (w[name] - 1e-4 * decayed / (decayed.abs() + 1e-8)).detach()
        found[f"after_dis/{name}"] = w[name]
    h_a, h_b = net.encode("a", x_a), net.encode("b", x_b)
    z_a, z_b = h_a + noise[2], h_b + noise[3]
    made = {"x_a_recon": net.decode("a", z_a), "x_b_recon": net.decode("b", z_b)}
    made |= {"x_ba": net.decode("a", z_b), "x_ab": net.decode("b", z_a)}
    h_ba, h_ab = net.encode("a", made["x_ba"]), net.encode("b", made["x_ab"])
    made |= {"x_aba": net.decode("a", h_ab + noise[5]), "x_bab": net.decode("b", h_ba + noise[4])}
    adversarial = sum(((y - 1) ** 2).mean() for m, x in (("a", "x_ba"), ("b", "x_ab")) for y in net.judge(m, made[x]))
    recon = (made["x_a_recon"] - x_a).abs().mean() + (made["x_b_recon"] - x_b).abs().mean()
    cycle = (made["x_aba"] - x_a).abs().mean() + (made["x_bab"] - x_b).abs().mean()
    kl, again = (h_a**2).mean() + (h_b**2).mean(), (h_ba**2).mean() + (h_ab**2).mean()
    total = adversarial + 10 * recon + 0.01 * kl + 10 * cycle + 0.01 * again
    found |= {f"gen/{name}": value for name, value in made.items()} | {"loss/gen_total": total}
    names = [name for name in w if name.startswith("gen_")]
    gradients = torch.autograd.grad(total, [w[n] for n in names])  # pyright: ignore[reportArgumentType]
    found |= {f"grad/{name}": gradient for name, gradient in zip(names, gradients, strict=True)}
    return {name: value.detach().numpy().copy() for name, value in found.items()}  # pyright: ignore


# --- the check --------------------------------------------------------------------------------------------------------


def check(arrays: Mapping[str, np.ndarray], tolerance: float = 1e-9) -> int:
    """Compare a method's step with the arrays of one; returns how many arrays were compared."""
    method, compared = small(), 0
    own = dict(method.named_parameters())

    def array(name: str) -> Tensor:
        return torch.from_numpy(np.asarray(arrays[name])).double()

    def under(prefix: str) -> list[str]:
        return [name.removeprefix(prefix) for name in arrays if name.startswith(prefix)]

    def same(found: Tensor, name: str) -> None:
        nonlocal compared
        torch.testing.assert_close(
            found.detach(), array(name), rtol=tolerance, atol=tolerance, msg=lambda t: f"{name}: {t}"
        )
        compared += 1

    filled = set()
    with torch.no_grad():
        for name in under("w/"):
            own[our_name(name)].copy_(array("w/" + name))
            filled.add(our_name(name))
    image_level = {n for n in own if n.startswith((T, "discriminators."))}
    assert filled == image_level, f"without recorded weights: {sorted(image_level - filled)}"
    images = array("x_a"), array("x_b")
    noise = [array(f"noise_dis/{i}") for i in (0, 1)] + [array(f"noise_gen/{i}") for i in (0, 1, 3, 2)]
    optim = Optimizers(method.params(), D2RL.recipe[0])
    critics = method.critic_step(images, noise[:2], optim)
    same(critics["discriminators"], "loss/dis_total")
    for name in (n for n in under("grad/") if n.startswith("dis_")):
        same(own[our_name(name)].grad, "grad/" + name)  # pyright: ignore[reportArgumentType]
    for name in under("after_dis/"):
        same(own[our_name(name)], "after_dis/" + name)
    trip = method.embedder.translators.round_trip(images, noise[2:])
    for name in under("gen/"):
        kind, modality = MADE[name]
        same(getattr(trip, kind)[modality], "gen/" + name)
    losses = method.image_losses(images, noise[2:])
    same(torch.stack(list(losses.values())).sum(), "loss/gen_total")
    optim.step(losses, "translators")
    for name in (n for n in under("grad/") if n.startswith("gen_")):
        same(own[our_name(name)].grad, "grad/" + name)  # pyright: ignore[reportArgumentType]
    return compared


def made(seed: int = 0) -> dict[str, np.ndarray]:
    """A step by `reference` on noise, with the sizes of the recorded one."""
    method = small()
    ours = dict(method.named_parameters())
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    w = {}
    for m in "ab":
        stems = [f"gen_{m}.enc.model.{i}.conv" for i in range(3)] + [f"gen_{m}.dec.model.{i}.conv" for i in (2, 4, 5)]
        stems += [
            f"gen_{m}.{p}.{i}.model.{j}.conv"
            for p in ("enc.model.3.model", "dec.model.0.model")
            for i in range(BLOCKS)
            for j in (0, 1)
        ]
        stems += [f"dis_{m}.cnns.{s}.{i}.conv" for s in range(SCALES) for i in range(LAYERS)]
        stems += [f"dis_{m}.cnns.{s}.{LAYERS}" for s in range(SCALES)]
        names = [f"{stem}.{p}" for stem in stems for p in ("weight", "bias")]
        names += [f"gen_{m}.dec.model.{i}.norm.{p}" for i in (2, 4) for p in ("gamma", "beta")]
        w |= {name: 0.3 * draw(*ours[our_name(name)].shape) for name in names}
    z = (2, 4 * WIDTH, 8, 6)
    return reference(w, draw(2, 3, 32, 24).tanh(), draw(2, 1, 32, 24).tanh(), [draw(*z) for _ in range(6)])
