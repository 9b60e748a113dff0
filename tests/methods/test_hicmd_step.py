"""Hi-CMD: one step, who is trained by what, batches, samples and settings."""

import pytest
import torch
from small_hicmd import batch, made_of, recorded_method
from torch import Tensor, nn

from vireid.method import Progress, Recipe
from vireid.methods.hicmd import HiCMD, inputs_of
from vireid.training.optim import Optimizers


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
