"""Hi-CMD: the generated images and every loss of a step written out row by row."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from small_hicmd import EXACT, LIGHT, POSE, STYLE, batch, made_of, one, recorded_method
from torch import Tensor

from vireid.method import Batch
from vireid.methods.hicmd import HiCMD, inputs_of


def code_of(styles: Tensor, pose: Tensor, light: Tensor) -> Tensor:
    """A code of 16 dimensions, put together by the recorded index lists."""
    code = torch.empty(16, dtype=styles.dtype)
    code[STYLE], code[POSE], code[LIGHT] = styles, pose, light
    return code


def by_rows(method: HiCMD, given: Batch, rebuild: str = "code", cycle: str = "code") -> dict[str, Tensor]:
    """Every generated image of a step under the specification's name, one image at a time, codes by index."""
    encode, found = method.embedder, {}
    for name in ("x_ba", "x_ab", "x^_a", "x^_b", "x_aba", "x_bab", "x3_ba", "x3_ab"):
        found[name] = []
    for row in (0, 3):
        x_a, x_b = given.images[row], given.images[6 + row]
        p_a, p_b = one(encode.prototypes[0], x_a), one(encode.prototypes[1], x_b)
        c_a, c_b = one(encode.attributes[0], x_a), one(encode.attributes[1], x_b)
        mix_a, mix_b = code_of(c_b[STYLE], c_a[POSE], c_a[LIGHT]), code_of(c_a[STYLE], c_b[POSE], c_b[LIGHT])
        x_ba, x_ab = one(method.decoder, p_b, mix_a), one(method.decoder, p_a, mix_b)
        found["x_ba"].append(x_ba)
        found["x_ab"].append(x_ab)
        found["x^_a"].append(one(method.decoder, p_a, mix_a if rebuild == "code" else c_a))
        found["x^_b"].append(one(method.decoder, p_b, mix_b if rebuild == "code" else c_b))
        p_ba, p_ab = one(encode.prototypes[0], x_ba), one(encode.prototypes[1], x_ab)
        c_ba, c_ab = one(encode.attributes[0], x_ba), one(encode.attributes[1], x_ab)
        if cycle == "paper":  # x_ab carries the style of a, x_ba the modality and pose of a
            mix_a, mix_b = code_of(c_ab[STYLE], c_ba[POSE], c_ba[LIGHT]), code_of(c_ba[STYLE], c_ab[POSE], c_ab[LIGHT])
        found["x_aba"].append(one(method.decoder, p_ab, mix_a))
        found["x_bab"].append(one(method.decoder, p_ba, mix_b))
        found["x3_ba"].append(one(method.decoder, p_b, code_of(c_b[STYLE], c_b[POSE], c_a[LIGHT])))
        found["x3_ab"].append(one(method.decoder, p_a, code_of(c_a[STYLE], c_a[POSE], c_b[LIGHT])))
    return {name: torch.stack(images) for name, images in found.items()}


@pytest.mark.parametrize(("rebuild", "cycle"), [("code", "code"), ("paper", "code"), ("code", "paper")])
def test_generated_images_are_the_listed_ones(rebuild: str, cycle: str) -> None:
    method, given = recorded_method(rebuild=rebuild, cycle_codes=cycle), batch()
    made, expected = made_of(method, given), by_rows(method, given, rebuild, cycle)
    found = {"x_ba": made.swapped[0], "x_ab": made.swapped[1], "x^_a": made.same[0], "x^_b": made.same[1]}
    found |= {"x_aba": made.cycle[0], "x_bab": made.cycle[1], "x3_ba": made.modality_only[0]}
    found |= {"x3_ab": made.modality_only[1]}
    for name, images in expected.items():
        torch.testing.assert_close(found[name], images, **EXACT)
    pairs = [(a, b) for a in expected for b in expected if a < b]
    assert all(not torch.allclose(expected[a], expected[b]) for a, b in pairs), "no two lists are the same by accident"


def test_generator_losses_written_out() -> None:
    method, given = recorded_method(), batch()
    inputs, made, image = inputs_of(given), made_of(method, given), by_rows(method, given)
    losses = {name: loss.item() for name, loss in method.generator_losses(inputs.images, made).items()}
    x_a, x_b = inputs.images
    a, b = (method.embedder.attributes[m](x) for m, x in enumerate((x_a, x_b)))
    ba, ab = method.embedder.attributes[0](image["x_ba"]), method.embedder.attributes[1](image["x_ab"])

    def l1(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().mean()

    rest = POSE + LIGHT
    expected = {
        "same": 50 * (l1(image["x^_a"], x_a) + l1(image["x^_b"], x_b)),
        "cross": 50 * (l1(image["x_ba"], x_a) + l1(image["x_ab"], x_b)),
        "cycle": 50 * (l1(image["x_aba"], x_a) + l1(image["x_bab"], x_b)),
        "code": 10 * (l1(a[:, rest], ba[:, rest]) + l1(b[:, rest], ab[:, rest])
                      + l1(b[:, STYLE], ba[:, STYLE]) + l1(a[:, STYLE], ab[:, STYLE])),
        "kl": a[:, rest].square().mean() + b[:, rest].square().mean(),
    }  # fmt: skip
    adversarial = torch.zeros(())
    for name, judge in (("x_ba", 0), ("x3_ba", 0), ("x_ab", 1), ("x3_ab", 1)):
        adversarial = adversarial + sum((maps - 1).square().mean() for maps in method.critics[judge](image[name]))
    expected["adversarial"] = 20 * adversarial
    assert losses == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-9)
    paper = recorded_method(kl_form="paper", gan="paper")
    again = paper.generator_losses(inputs.images, made)
    half = sum(x[:, rest].square().sum(1).mean().item() / 2 for x in (a, b))
    assert again["kl"].item() == pytest.approx(half, rel=1e-9)
    logs = sum(
        -torch.sigmoid(maps).log().mean().item()
        for name, judge in (("x_ba", 0), ("x3_ba", 0), ("x_ab", 1), ("x3_ab", 1))
        for maps in method.critics[judge](image[name])
    )
    assert again["adversarial"].item() == pytest.approx(20 * logs, rel=1e-9)


@pytest.mark.parametrize("gan", ["code", "paper"])
def test_discriminator_loss_written_out(gan: str) -> None:
    method, given = recorded_method(gan=gan), batch()
    inputs, image = inputs_of(given), by_rows(method, given)
    total = torch.zeros(())
    for name, judge in (("x_ba", 0), ("x3_ba", 0), ("x_ab", 1), ("x3_ab", 1)):
        critic, real = method.critics[judge], inputs.images[judge]
        for scale in range(3):
            fake, true = critic(image[name])[scale], critic(real)[scale]
            if gan == "code":
                total = total + fake.square().mean() + (true - 1).square().mean()
            else:
                total = total - (1 - torch.sigmoid(fake)).log().mean() - torch.sigmoid(true).log().mean()
            for row in range(2):  # the penalty, one image after the other
                x = real[row].clone().requires_grad_()
                (gradient,) = torch.autograd.grad(critic(x[None])[scale].sum(), x)
                total = total + 0.01 * gradient.square().sum() / 2
    found = method.discriminator_loss(inputs.images, made_of(method, given))
    assert found.item() == pytest.approx(20 * total.item(), rel=1e-9)


def identity_rows(method: HiCMD, given: Batch) -> list[tuple[Tensor, int, int]]:
    """(joined vector, label, kind counted from 1) of the twenty rows, one image at a time."""
    encode, image = method.embedder, by_rows(method, given)
    label, alpha = given.label.tolist(), 0.5

    def codes(x: Tensor, m: int) -> tuple[Tensor, Tensor]:
        return one(encode.trunk, one(encode.prototypes[m], x)), one(encode.attributes[m], x)[STYLE]

    def join(e: Tensor, s: Tensor) -> Tensor:
        return torch.cat([alpha * e / e.square().sum().sqrt(), (1 - alpha) * s / s.square().sum().sqrt()])

    rows = []
    for k, row in enumerate((0, 3)):
        a, b = codes(given.images[row], 0), codes(given.images[6 + row], 1)
        ba, ab = codes(image["x_ba"][k], 0), codes(image["x_ab"][k], 1)
        pairs = [(1, a, a), (2, b, b), (3, ba, ba), (4, ab, ab), (7, a, ba), (7, ba, a), (8, b, ab), (8, ab, b)]
        rows += [(join(p[0], s[1]), label[row], kind) for kind, p, s in pairs]
    rows += [(join(*codes(given.images[i], 0)), label[i], 5) for i in (1, 4)]
    rows += [(join(*codes(given.images[6 + i], 1)), label[6 + i], 6) for i in (2, 5)]
    return rows


@pytest.mark.parametrize("neck_rows", ["all", "kind"])
def test_identity_losses_written_out(neck_rows: str) -> None:
    method, given = recorded_method(neck_rows=neck_rows), batch()
    rows = identity_rows(method, given)
    assert len(rows) == 20 and sorted({y for _, y, _ in rows}) == [0, 1, 2, 3, 4, 5]
    neck, x = method.embedder.neck, torch.stack([r[0] for r in rows])
    linear = x @ neck.linear.weight.T + neck.linear.bias
    kinds = torch.tensor([r[2] for r in rows]) if neck_rows == "kind" else torch.zeros(20)
    f1 = torch.empty_like(linear)
    for kind in kinds.unique():
        part = linear[kinds == kind]
        f1[kinds == kind] = (part - part.mean(0)) / (part.var(0, unbiased=False) + 1e-5).sqrt()
    f1 = f1 * neck.bn.weight + neck.bn.bias
    logits, label = method.classifier(f1), torch.tensor([r[1] for r in rows])
    entropy = -sum(logits.log_softmax(1)[i, y].item() for i, y in enumerate(label)) / 20
    unit = F.normalize(method.projection(f1), dim=1)
    cosine, triplet = (unit @ unit.T).tolist(), 0.0
    for group in ((1, 3, 7), (2, 4, 8)):
        pivots = [i for i, r in enumerate(rows) if r[2] in group]
        assert len(pivots) == 8
        for i in pivots:
            p = min(cosine[i][j] for j in range(20) if label[j] == label[i])
            n = max(cosine[i][j] for j in range(20) if label[j] != label[i])
            triplet += (max(0.0, n - p + 0.5) + (1 + n) ** 2 + (1 - p) ** 2) / 8
    losses = method.identity_losses(inputs_of(given), made_of(method, given))
    assert losses["identity"].item() == pytest.approx(entropy, rel=1e-9)
    assert losses["triplet"].item() == pytest.approx(triplet, rel=1e-6)  # lengths are 1e-8 more in it


def test_reconstruction_and_kl_equal_the_recorded_ones() -> None:
    with np.load(GOLDEN / "hicmd_recon_kl.npz") as arrays:
        given = {key: torch.from_numpy(arrays[key]) for key in arrays}
    a, mu = given["a"].requires_grad_(), given["mu"].requires_grad_()
    recon, kl = F.l1_loss(a, given["b"]), recorded_method().kl(mu)
    (recon + kl).backward()
    for found, name in ((recon, "recon"), (kl, "kl"), (a.grad, "grad_a"), (mu.grad, "grad_mu")):
        torch.testing.assert_close(found, given[name], **EXACT)
