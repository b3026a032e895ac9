import numpy as np
import pytest
from conftest import noise

import zoo
from zoo.config import load_config
from zoo.config.recipe import Augment, RandAugment
from zoo.errors import InputError
from zoo.training.augmentation import Mixing, ShiftAndFlip, rand_augment
from zoo.training.recipe import trainer


def test_every_augmented_image_is_a_shift_or_mirrored_shift_of_its_own():
    images = noise(64, 6, 5, 2)
    fill = (7.0, 9.0)
    moved = np.asarray(ShiftAndFlip(Augment(shift=2, flip=True), fill)(images, training=True))
    seen = set()
    for image, given in zip(images, moved, strict=True):
        found = []
        for flip in (False, True):
            source = image[:, ::-1] if flip else image
            padded = np.tile(np.float32(fill), (10, 9, 1))
            padded[2:8, 2:7] = source
            for down in range(5):
                for right in range(5):
                    if np.array_equal(padded[down : down + 6, right : right + 5], given):
                        found.append((flip, down, right))
        assert len(found) == 1
        seen.add(found[0])
    assert {flip for flip, *_ in seen} == {False, True}
    assert {down for _, down, _ in seen} == {right for *_, right in seen} == set(range(5))


def test_shifts_may_show_the_images_own_mirrored_border():
    images = noise(40, 6, 5, 2)
    moved = np.asarray(ShiftAndFlip(Augment(shift=2, reflect=True), (7.0, 9.0))(images, training=True))
    seen = set()
    for image, given in zip(images, moved, strict=True):
        rows, columns = [2, 1, *range(6), 4, 3], [2, 1, *range(5), 3, 2]
        padded = image[np.ix_(rows, columns)]
        places = [(i, j) for i in range(5) for j in range(5) if np.array_equal(padded[i : i + 6, j : j + 5], given)]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 8


def test_augmentation_acts_in_training_only_and_differs_from_call_to_call():
    layer = ShiftAndFlip(Augment(shift=2), (0.0,))
    images = noise(8, 6, 6, 1)
    np.testing.assert_array_equal(np.asarray(layer(images, training=False)), images)
    calls = [np.asarray(layer(images, training=True)) for _ in range(2)]
    assert not np.array_equal(*calls)


def mixed(config, images):
    """Images, and the partners and shares, of a batch that training mixes."""
    result, mix = Mixing(config)(images, training=True)
    return np.asarray(result), np.asarray(mix["partner"]), np.asarray(mix["share"])


def test_mixup_blends_each_image_with_its_partner_by_its_share():
    images = noise(64, 6, 5, 2)
    result, partner, share = mixed(Augment(mixup=0.4), images)
    share = share[:, None, None, None]
    np.testing.assert_allclose(result, share * images + (1 - share) * images[partner], rtol=1e-5, atol=1e-3)
    assert sorted(partner) == list(range(64))
    # Beta(0.4, 0.4): mean 1/2, standard deviation 0.37
    assert 0.35 < share.mean() < 0.65 and 0.25 < share.std() < 0.48


def test_cutmix_pastes_a_rectangle_of_the_partner_and_keeps_the_share_of_the_rest():
    images = np.arange(1, 65, dtype=np.float32).reshape(64, 1, 1, 1) * np.ones((1, 32, 24, 1), np.float32)
    result, partner, share = mixed(Augment(cutmix=1.0), images)
    for image, own, other, kept in zip(
        result[..., 0], images[:, 0, 0, 0], images[partner, 0, 0, 0], share, strict=True
    ):
        pasted = image != own
        assert set(np.unique(image)) <= {own, other}
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        assert pasted.sum() == len(rows) * len(columns)
        # Keras draws the rectangle in fractions of pixels.
        if own != other:
            assert abs((1 - kept) * image.size - pasted.sum()) <= len(rows) + len(columns) + 1
    # Beta(1, 1) is the even distribution.
    assert 0.35 < share.mean() < 0.65 and share.min() < 0.2 and share.max() > 0.8


def test_with_both_each_batch_has_one_of_them():
    images = np.arange(1, 33, dtype=np.float32).reshape(32, 1, 1, 1) ** 2 * np.ones((1, 8, 8, 1), np.float32)
    layer, seen = Mixing(Augment(mixup=1.0, cutmix=1.0)), set()
    for _ in range(20):
        result = np.asarray(layer(images, training=True)[0])
        plain = (result == result[:, :1, :1]).all((1, 2, 3))
        blended = ~np.isin(result, images)
        seen.add("cutmix" if not blended.any() else "mixup")
        assert plain.all() or not blended.any()
    assert seen == {"mixup", "cutmix"}


def test_mixing_and_randaugment_act_in_training_only():
    images = noise(8, 8, 8, 1)
    result, mix = Mixing(Augment(mixup=0.2, cutmix=1.0))(images, training=False)
    np.testing.assert_array_equal(np.asarray(result), images)
    np.testing.assert_array_equal(np.asarray(mix["partner"]), np.arange(8))
    np.testing.assert_array_equal(np.asarray(mix["share"]), 1)
    layer = rand_augment(RandAugment(operations=2, magnitude=0.5))
    np.testing.assert_array_equal(np.asarray(layer(images, training=False)), images)
    assert any(not np.array_equal(np.asarray(layer(images, training=True)), images) for _ in range(5))


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_keeps_shape_and_range(channels):
    layer = rand_augment(RandAugment(operations=3, magnitude=1.0))
    for _ in range(10):
        result = np.asarray(layer(noise(4, 9, 7, channels), training=True))
        assert result.shape == (4, 9, 7, channels) and result.min() >= 0 and result.max() <= 255


def test_the_loss_takes_labels_mixed_as_the_images_were_and_in_training_only():
    config = load_config("nin_digits", ["train.label_smoothing=0"])
    made = trainer(zoo.build(config.model), config.train, (0.0,), 10)
    logits = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[[3, 1, 4, 1]]
    share, partner = np.float32([0.9, 0.3, 1.0, 0.0]), np.array([2, 3, 1, 0])
    outputs = {"logits": [logits], "mix": {"share": share, "partner": partner}}
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -(share[:, None] * labels * log_p + (1 - share[:, None]) * labels[partner] * log_p).sum(-1).mean()
    assert float(made.compute_loss(None, labels, outputs)) == pytest.approx(wanted, rel=1e-5)
    plain = -(labels * log_p).sum(-1).mean()
    assert float(made.compute_loss(None, labels, outputs, training=False)) == pytest.approx(plain, rel=1e-5)


def test_a_trainer_mixes_what_its_model_sees():
    """And its outputs say how."""
    config = load_config("nin_digits", ["train.augment={mixup: 1.0}", "train.label_smoothing=0"])
    made = trainer(zoo.build(config.model), config.train, (0.0,), 10)
    names = [layer.name for layer in made.layers]
    assert "mixing" in names and "augment" not in names
    outputs = made(noise(8, 8, 8, 1), training=True)
    assert outputs["logits"][0].shape == (8, 10) and outputs["mix"]["share"].shape == (8,)
    assert sorted(np.asarray(outputs["mix"]["partner"])) == list(range(8))


def test_randaugment_of_images_that_are_not_8_bit_is_refused(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {f"x_{part}": generator.integers(0, 65536, (40, 8, 8)).astype(np.uint16) for part in ("train", "test")}
    arrays |= {f"y_{part}": np.arange(40) % 10 for part in ("train", "test")}
    np.savez(tmp_path / "deep.npz", **arrays)
    config = load_config("resnet_digits", ["data.name=npz", f"data.dir={tmp_path / 'deep.npz'}", "train.batch_size=8"])
    with pytest.raises(InputError, match="train.augment.randaugment: received uint16 images; accepted: uint8"):
        zoo.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
