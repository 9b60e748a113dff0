"""Hi-CMD: the generated images and every loss of a step written out row by row, who is trained by what, and settings.

`recorded_method` builds the method at the sizes of the recorded training step of the released code (golden README), and
`recorded_batch` puts its fixed inputs into a batch; `method.step` in float64 is then that step. Their parameters are
ours under these names (RGB = 0, IR = 1; conv stands for weight and bias):

    gen_RGB.enc_pro                 embedder.prototypes.0     inner names: PROTOTYPE in layers/test_hicmd_layers.py
    gen_RGB.enc_att                 embedder.attributes.0     here the small stand-in for the ResNet
    gen_RGB.dec                     decoder, one for both modalities
      mlp_w1..4, mlp_b1..4            scales.0..3, shifts.0..3, their linear layers in order
      k-th residual block, two convs  blocks.k.first.conv, blocks.k.second.conv
      upsampling, 5x5 conv and LN     up.0.block, up.1.block (gamma = norm.weight, beta = norm.bias)
      3x3, 3x3, 1x1 conv              out.0.conv, out.1.conv, out.2
    dis_RGB                         critics.0: cnns.S.I -> networks.S.I, model.0 -> first, model.1 -> second
    combine_weight.multp            embedder.balance.alpha
    prototype backbone              embedder.trunk            here the small stand-in
    add_block.0, add_block.1        embedder.neck.linear, embedder.neck.bn
    add_block2.0, classifier.0      projection, classifier

The recorded test feature is `method.eval().embedder.layers(images, modality)["neck"]`, modality 0 for visible (there
1) and 1 for infrared (there 0); the recorded decoder is `Decoder(8, 24, 10)`.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from torch import Tensor, nn

from vireid.layers.hicmd import Neck, PrototypeEncoder
from vireid.layers.hicmd_generator import Decoder, Made
from vireid.layers.image_translation import MultiScale, residual_critic
from vireid.method import Batch, Progress, Recipe
from vireid.methods.hicmd import HiCMD, inputs_of
from vireid.training.optim import Optimizers
from vireid.types import INFRARED, VISIBLE

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BOTH = (VISIBLE, INFRARED)
STYLE = [0, 1, 4, 5, 8, 9, 12, 13]  # of a code of 16 dimensions, as recorded (hicmd_code_layout)
POSE, LIGHT = [2, 6, 10, 14], [3, 7, 11, 15]


def stand_in(channels: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    """Takes the place of a ResNet: a convolution, leaky ReLU 0.1, the average over the maps."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2)
    return nn.Sequential(conv, nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def recorded_method(**settings: object) -> HiCMD:
    """Widths of the generator 2, of the critics 3, mlp 6, f1 8, projection 5, six people; no dropout, no erasing."""
    torch.manual_seed(0)
    method = HiCMD(6, width=4, blocks=(1, 1, 1, 1), dropout=0.0, erase=0.0, **settings)  # pyright: ignore
    encode = method.embedder
    encode.prototypes = nn.ModuleList(PrototypeEncoder(2) for _ in BOTH)
    encode.attributes = nn.ModuleList(stand_in(3, 16, 5, 4) for _ in BOTH)
    encode.trunk = stand_in(16, 10, 3, 2)  # pyright: ignore[reportAttributeAccessIssue]
    encode.neck = Neck(10 + 8, 8, dropout=0.0)
    method.decoder = Decoder(16, 16, 6)
    method.critics = nn.ModuleList(MultiScale([residual_critic(width=3) for _ in range(3)]) for _ in BOTH)
    method.classifier, method.projection = nn.Linear(8, 6), nn.Linear(8, 5)
    return method.double()


def recorded_batch(pos: Tensor, pos_labels: Tensor, neg: Tensor, neg_labels: Tensor) -> Batch:
    """`pos` (8, ...) = [visible, visible, infrared, infrared] of two people; `neg` (4, ...) = two of each.

    Rows 0 and 4 of `pos` are x_a and 2 and 6 are x_b; what the released code does not use is left out or stands idle.
    """
    visible = torch.stack([pos[0], neg[0], neg[0], pos[4], neg[1], neg[1]])
    infrared = torch.stack([pos[2], neg[2], neg[2], pos[6], neg[3], neg[3]])
    labels = [
        torch.stack([pos_labels[i], neg_labels[j], neg_labels[j], pos_labels[i + 4], neg_labels[j + 1],
                     neg_labels[j + 1]]) for i, j in ((0, 0), (2, 2))
    ]  # fmt: skip
    view = torch.arange(2).repeat_interleave(6)
    return Batch(torch.cat([visible, infrared]), torch.cat(labels), view + 1, view, view)


def batch() -> Batch:
    images = torch.randn(12, 3, 48, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smooth = F.avg_pool2d(images, 5, 1, 2) * 3  # neighbors alike, as in pictures
    pos_labels, neg_labels = torch.tensor([4] * 4 + [1] * 4), torch.tensor([0, 2, 3, 5])
    return recorded_batch(smooth[:8], pos_labels, smooth[8:], neg_labels)


def code_of(styles: Tensor, pose: Tensor, light: Tensor) -> Tensor:
    """A code of 16 dimensions, put together by the recorded index lists."""
    code = torch.empty(16, dtype=styles.dtype)
    code[STYLE], code[POSE], code[LIGHT] = styles, pose, light
    return code


def one(module: nn.Module, *rows: Tensor) -> Tensor:
    return module(*(row[None] for row in rows))[0]


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


def made_of(method: HiCMD, given: Batch) -> Made:
    return method.make(inputs_of(given).images)


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


# --- the step -------------------------------------------------------------------------------------------------------


def recipe() -> Recipe:
    assert isinstance(HiCMD.recipe, Recipe)
    return HiCMD.recipe


def test_discriminators_step_first_and_the_generator_meets_the_new_ones() -> None:
    method, given = recorded_method().train(), batch()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    made, images = made_of(method, given), inputs_of(given).images
    old = method.generator_losses(images, made)["adversarial"].item()
    losses = method.step(given, Optimizers(method.params(), recipe()), Progress())
    names = ["same", "cross", "cycle", "code", "kl", "adversarial", "identity", "triplet", "discriminator"]
    assert list(losses) == names
    new = method.generator_losses(images, made)["adversarial"].item()  # old images, present discriminators
    assert losses["adversarial"].item() == pytest.approx(new, rel=1e-9) and new != pytest.approx(old, rel=1e-6)
    changed = {name for name, value in method.state_dict().items() if not value.equal(before[name])}
    assert changed >= {name for name, _ in method.named_parameters()}


def test_first_step_of_every_group_is_its_optimizers() -> None:
    """Adam's first step has the size of the rate, along the signs; SGD's is 1.9 times gradient and decay."""
    method, given = recorded_method().train(), batch()
    method.step(given, Optimizers(method.params(), recipe()), Progress())
    gradients = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
    twin = recorded_method()
    start = dict(twin.named_parameters())
    for name, p in method.named_parameters():
        gradient, moved = gradients[name] + 1e-4 * start[name], p - start[name]
        if name.startswith(("critics", "embedder.prototypes", "embedder.attributes", "decoder")):
            expected = -1e-4 * gradient / (gradient.abs() + 1e-8)
        else:
            expected = -(1e-5 if name.endswith("alpha") else 1e-3) * 1.9 * gradient
        torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-11)


def gradients_of(loss: Tensor, module: nn.Module) -> bool:
    found = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, retain_graph=True)
    return any(g is not None and bool(g.abs().max() > 1e-12) for g in found)


def test_who_is_trained_by_what() -> None:
    method, given = recorded_method().train(), batch()
    inputs, made, encode = inputs_of(given), made_of(method, given), method.embedder
    identity = torch.stack(list(method.identity_losses(inputs, made).values())).sum()
    assert gradients_of(identity, encode.prototypes) and gradients_of(identity, encode.attributes)
    assert gradients_of(identity, encode.balance) and gradients_of(identity, encode.trunk)
    assert not gradients_of(identity, method.decoder) and not gradients_of(identity, method.critics)
    against = method.discriminator_loss(inputs.images, made)
    assert gradients_of(against, method.critics)
    assert not gradients_of(against, method.decoder) and not gradients_of(against, encode)
    losses = method.generator_losses(inputs.images, made)
    assert not gradients_of(torch.stack(list(losses.values())).sum(), encode.trunk)
    # the code term has a gradient on both sides: with one of them held it is another one
    attribute = encode.attributes[0][0].weight
    (both,) = torch.autograd.grad(losses["code"], attribute, retain_graph=True)
    held = made._replace(code=[c.detach() for c in made.code])
    (rest,) = torch.autograd.grad(method.generator_losses(inputs.images, held)["code"], attribute, retain_graph=True)
    assert not torch.allclose(both, rest)
    assert not any(torch.autograd.grad(losses["kl"], list(encode.prototypes.parameters()), allow_unused=True))


def test_batch_norms_see_the_released_groups() -> None:
    """Attribute encoders: x and y for the generator, x, y and negatives for matching; trunk: all six; neck: 20 rows."""
    torch.manual_seed(0)
    method, seen = HiCMD(6, **HiCMD.tiny).train(), {}  # pyright: ignore[reportArgumentType]
    given = batch()
    given.images = given.images.float()
    encode = method.embedder
    watched = {"visible": encode.attributes[0].layer4[0].bn3, "infrared": encode.attributes[1].stem.bn1,  # pyright: ignore
               "trunk": encode.trunk.layer3[0].bn1, "neck": encode.neck.bn}  # fmt: skip
    for name, module in watched.items():
        module.register_forward_pre_hook(lambda _, x, name=name: seen.setdefault(name, []).append(len(x[0])))
    method.step(given, Optimizers(method.params(), recipe()), Progress())
    assert seen == {"visible": [2] * 5, "infrared": [2] * 5, "trunk": [2] * 6, "neck": [20]}


def test_erasing_reaches_the_identity_losses_alone() -> None:
    method, given = recorded_method(), batch()
    inputs, made = inputs_of(given), made_of(method, given)
    plain, pictures = method.identity_losses(inputs, made), method.generator_losses(inputs.images, made)
    other = HiCMD(6, **HiCMD.tiny, erase=1.0).erase  # pyright: ignore[reportArgumentType]
    method.erase = other
    before = inputs.images[0].clone()
    erased = [method.identity_losses(inputs, made)["identity"].item() for _ in range(2)]
    assert erased[0] != erased[1] and plain["identity"].item() not in erased and inputs.images[0].equal(before)
    again = method.generator_losses(inputs.images, made)
    assert {k: v.item() for k, v in again.items()} == {k: v.item() for k, v in pictures.items()}
    assert method.erased(torch.ones(4, 3, 48, 40)).unique().tolist() == [0, 1]  # 0 is the mean color


def test_swapping_people_or_modalities_changes_nothing() -> None:
    method, given = recorded_method(), batch()
    total = {k: v.item() for k, v in method.generator_losses(inputs_of(given).images, made_of(method, given)).items()}
    order = torch.tensor([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8])
    turned = given[order]
    found = method.generator_losses(inputs_of(turned).images, made_of(method, turned))
    assert {k: v.item() for k, v in found.items()} == pytest.approx(total, rel=1e-9)
    for parts in (method.embedder.prototypes, method.embedder.attributes, method.critics):
        parts[0], parts[1] = parts[1], parts[0]  # infrared takes the place of visible, networks included
    images = inputs_of(given).images[::-1]
    found = method.generator_losses(images, method.make(images))
    assert {k: v.item() for k, v in found.items()} == pytest.approx(total, rel=1e-9)


# --- batches, samples, settings --------------------------------------------------------------------------------------


def test_inputs_are_taken_from_their_rows() -> None:
    given = batch()
    given.images = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 2, 2)
    given.label = torch.arange(12)
    inputs = inputs_of(given)
    assert [x[:, 0, 0, 0].tolist() for x in inputs.images] == [[0, 3], [6, 9]]
    assert [x[:, 0, 0, 0].tolist() for x in inputs.negatives] == [[1, 4], [8, 11]]
    assert inputs.label.tolist() == [0, 3] and [y.tolist() for y in inputs.negative_label] == [[1, 4], [8, 11]]
    with pytest.raises(ValueError, match=r"3 rows per person, got views of \[5, 5\] rows; use the sampler PivotPairs"):
        inputs_of(given[torch.tensor([0, 1, 2, 3, 4, 6, 7, 8, 9, 10])])


def test_samples_show_both_images_of_every_row_and_what_is_made_of_them() -> None:
    method, given = recorded_method().eval(), batch()
    with torch.no_grad():
        rows = method.samples(given, Progress())
        made = method.make([given.images[:6], given.images[6:]])
    assert len(rows) == 10 and all(x.shape == (6, 3, 48, 40) for x in rows.values())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for name, images in (("visible", given.images[:6]), ("infrared", given.images[6:]),
                         ("infrared to visible", made.swapped[0]), ("visible to infrared", made.swapped[1]),
                         ("infrared, cycle", made.cycle[1])):  # fmt: skip
        torch.testing.assert_close(rows[name], images * std.view(3, 1, 1) + mean.view(3, 1, 1), rtol=0, atol=1e-6)


def test_a_weight_of_zero_leaves_its_term_out() -> None:
    method, given = recorded_method(adversarial=0.0, cycle=0.0, triplet=0.0).train(), batch()
    before = [p.clone() for p in method.critics.parameters()]
    losses = method.step(given, Optimizers(method.params(), recipe()), Progress())
    assert set(losses) == {"same", "cross", "code", "kl", "identity"}
    assert all(a.equal(b) for a, b in zip(before, method.critics.parameters(), strict=True))


def test_wrong_settings_are_refused() -> None:
    for wrong in ({"rebuild": "both"}, {"gan": "wgan"}, {"neck_rows": "none"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            HiCMD(4, **HiCMD.tiny, **wrong)  # pyright: ignore[reportArgumentType]
