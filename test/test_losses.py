"""Losses against values worked out by hand, or written another way."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sgrocc.labels import CHAIR, FLOOR, NUM_CLASSES, UNKNOWN, WALL  # noqa: E402
from sgrocc.training import losses  # noqa: E402
from sgrocc.training.losses import (  # noqa: E402
    focal,
    geometric_scale,
    image_class_error,
    log_depth_error,
    log_depth_gradient_error,
    lovasz_softmax,
    semantic_scale,
)

CHANNELS = 1 + NUM_CLASSES
VOXEL_LOSSES = (focal, lovasz_softmax, semantic_scale, geometric_scale)


def random_case(seed: int, count: int = 200, present=range(CHANNELS)):
    """Probabilities (V, 12) that follow the labels a little, and labels (V,), of which each of `present` occurs."""
    rng = np.random.default_rng(seed)
    present = np.array(list(present))
    labels = np.concatenate([present, rng.choice(present, count - len(present))])
    scores = rng.normal(size=(count, CHANNELS)) + 1.5 * np.eye(CHANNELS)[labels]
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return torch.from_numpy(p), torch.from_numpy(labels)


def certain(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, CHANNELS).double()


@pytest.mark.parametrize("loss", VOXEL_LOSSES, ids=lambda loss: loss.__name__)
def test_a_loss_is_least_where_all_is_right_and_most_where_all_is_wrong(loss):
    p, labels = random_case(0)
    right, between, wrong = (loss(q, labels).item() for q in (certain(labels), p, certain((labels + 5) % CHANNELS)))
    assert 0 <= right < 1e-4 < between < wrong


@pytest.mark.parametrize("loss", VOXEL_LOSSES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("present", [range(CHANNELS), (0, WALL), (0,), (FLOOR,)], ids=str)
def test_gradients_are_finite_even_where_predictions_are_certain(loss, present):
    p, labels = random_case(1, present=present)
    for q in (p, certain(labels), certain((labels + 5) % CHANNELS), torch.zeros_like(p)):
        leaf = q.float().requires_grad_()
        loss(leaf, labels).backward()
        assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("loss", VOXEL_LOSSES, ids=lambda loss: loss.__name__)
def test_a_step_down_the_gradient_is_a_step_down_the_loss(loss):
    p, labels = random_case(2)
    logits = torch.log(p).requires_grad_()
    before = loss(torch.softmax(logits, dim=1), labels)
    before.backward()
    after = loss(torch.softmax(logits.detach() - 0.01 * logits.grad / logits.grad.norm(), dim=1), labels)
    assert after < before


@pytest.mark.parametrize("loss", VOXEL_LOSSES, ids=lambda loss: loss.__name__)
def test_the_order_of_voxels_does_not_matter(loss):
    p, labels = random_case(3)
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(p[order], labels[order]), loss(p, labels))


# Focal


def test_focal_of_two_voxels_by_hand():
    p = torch.full((2, CHANNELS), 0.01, dtype=torch.float64)
    p[0, 0], p[1, CHAIR] = 0.9, 0.3
    w = losses._CLASS_WEIGHTS
    others = 0.75 * 0.01**2 * -np.log(0.99)
    free = 0.25 * 0.1**2 * -np.log(0.9) * w[0] + others * (sum(w) - w[0])
    chair = 0.25 * 0.7**2 * -np.log(0.3) * w[CHAIR] + others * (sum(w) - w[CHAIR])
    assert focal(p, torch.tensor([0, CHAIR])).item() == pytest.approx((free + chair) / 2, rel=1e-6)


def test_focal_is_binary_cross_entropy_where_it_focuses_on_nothing():
    p, labels = random_case(4)
    w = torch.tensor(losses._CLASS_WEIGHTS, dtype=torch.float64)
    entropy = torch.nn.functional.binary_cross_entropy(p, certain(labels), reduction="none")
    expected = 0.5 * (entropy * w).sum(dim=1).mean()
    torch.testing.assert_close(focal(p, labels, gamma=0.0, alpha=0.5), expected)


def test_a_missed_rare_class_costs_more_than_a_missed_common_one():
    p = torch.full((1, CHANNELS), 1 / CHANNELS, dtype=torch.float64)
    cost = [focal(p, torch.tensor([label])).item() for label in range(CHANNELS)]
    order = np.argsort(losses._CLASS_WEIGHTS)
    assert (np.diff(np.array(cost)[order]) >= 0).all() and cost[0] == min(cost)


def test_class_weights_are_one_over_the_logarithm_of_the_classes_voxels():
    # Of the training set of Occ-ScanNet, empty first: the counts that EmbodiedOcc publishes.
    counts = [
        3196722886, 722756, 44793226, 41084591, 3416464, 21897101, 10609339, 13846320, 23470172, 263393, 30949122,
        9871618,
    ]  # fmt: skip
    np.testing.assert_allclose(losses._CLASS_WEIGHTS, 1 / np.log(counts), atol=6e-5)


# Lovasz


def jaccard_loss(predicted: np.ndarray, labels: np.ndarray) -> float:
    """1 - IoU, mean over the labels that are present."""
    return float(
        np.mean(
            [
                1 - np.sum((predicted == c) & (labels == c)) / np.sum((predicted == c) | (labels == c))
                for c in np.unique(labels)
            ]
        )
    )


@pytest.mark.parametrize("present", [range(CHANNELS), (0, FLOOR, WALL)], ids=str)
def test_lovasz_of_certain_predictions_is_the_jaccard_loss(present):
    p, labels = random_case(5, present=present)
    predicted = p.argmax(dim=1)
    assert (predicted != labels).any()
    assert lovasz_softmax(certain(predicted), labels).item() == pytest.approx(
        jaccard_loss(predicted.numpy(), labels.numpy()), abs=1e-9
    )


def test_lovasz_between_certain_predictions_is_that_of_its_definition():
    p, labels = random_case(6, count=40)
    expected = []
    for label in np.unique(labels):
        foreground = labels.numpy() == label
        errors = np.where(foreground, 1 - p[:, label].numpy(), p[:, label].numpy())
        # The extension: errors in falling order, each with what it adds to the Jaccard loss of the set so far.
        order, total, before = np.argsort(-errors), 0.0, 0.0
        for i in range(len(order)):
            wrong = np.zeros(len(order), bool)
            wrong[order[: i + 1]] = True
            loss = 1 - np.sum(foreground & ~wrong) / np.sum(foreground | wrong)
            total += errors[order[i]] * (loss - before)
            before = loss
        expected.append(total)
    assert lovasz_softmax(p, labels).item() == pytest.approx(np.mean(expected), abs=1e-9)


# Scales


def test_semantic_scale_by_hand():
    p = torch.zeros(4, CHANNELS, dtype=torch.float64)
    p[:, 0] = torch.tensor([0.2, 0.7, 0.4, 1.0])
    p[:, FLOOR] = torch.tensor([0.8, 0.3, 0.0, 0.0])
    p[:, WALL] = torch.tensor([0.0, 0.0, 0.6, 0.0])
    labels = torch.tensor([FLOOR, 0, WALL, 0])
    floor = -np.log(0.8 / 1.1) - np.log(0.8 / 1) - np.log((0.7 + 1 + 1) / 3)
    wall = -np.log(0.6 / 0.6) - np.log(0.6 / 1) - np.log(3 / 3)
    assert semantic_scale(p, labels).item() == pytest.approx((floor + wall) / 2, abs=1e-5)


def test_geometric_scale_by_hand():
    p = torch.zeros(3, CHANNELS, dtype=torch.float64)
    p[:, 0] = torch.tensor([0.1, 0.3, 0.8])
    p[:, CHAIR] = 1 - p[:, 0]
    labels = torch.tensor([CHAIR, FLOOR, 0])
    precision, recall, specificity = 1.6 / 1.8, 1.6 / 2, 0.8 / 1
    expected = -np.log(precision) - np.log(recall) - np.log(specificity)
    assert geometric_scale(p, labels).item() == pytest.approx(expected, abs=1e-5)


def test_absent_classes_do_not_count():
    p, labels = random_case(7, present=(0, FLOOR))
    # What is given to an absent class is lost to the others, but is no loss of its own.
    moved = p.clone()
    moved[:, CHAIR] += moved[:, WALL]
    moved[:, WALL] = 0.0
    for loss in (lovasz_softmax, semantic_scale):
        torch.testing.assert_close(loss(moved, labels), loss(p, labels))
    nothing = semantic_scale(p, torch.zeros_like(labels))
    assert nothing == 0


# Depth


def test_depth_errors_are_of_logarithms_and_of_known_pixels():
    truth = torch.tensor([[[[1.0, 2.0], [4.0, 0.0]]]])
    depth = torch.tensor([[[[np.e, 2.0], [4.0 / np.e**2, 77.0]]]], dtype=torch.float32)
    assert log_depth_error(depth, truth).item() == pytest.approx((1 + 0 + 2) / 3, abs=1e-5)
    assert log_depth_error(depth, torch.zeros_like(truth)) == 0


def test_a_wrong_scale_costs_depth_but_no_gradient():
    truth = 1.0 + torch.rand(2, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    assert log_depth_error(truth, truth) == 0 and log_depth_gradient_error(truth, truth) == 0
    assert log_depth_error(1.5 * truth, truth).item() == pytest.approx(np.log(1.5), abs=1e-5)
    assert log_depth_gradient_error(1.5 * truth, truth).item() == pytest.approx(0, abs=1e-5)


def test_gradient_errors_are_those_of_all_known_pairs():
    generator = torch.Generator().manual_seed(1)
    depth, truth = 1.0 + torch.rand(2, 2, 1, 9, 11, generator=generator, dtype=torch.float64)
    truth[torch.rand(truth.shape, generator=generator) < 0.3] = 0.0
    expected = []
    for step in (1, 2, 4):
        for dv, du in ((step, 0), (0, step)):
            changes = []
            for b, v, u in np.ndindex(2, 9 - dv, 11 - du):
                here, there = (b, 0, v, u), (b, 0, v + dv, u + du)
                if truth[here] > 0 and truth[there] > 0:
                    wanted = torch.log(truth[there]) - torch.log(truth[here])
                    changes.append((torch.log(depth[there]) - torch.log(depth[here]) - wanted).abs().item())
            expected.append(np.mean(changes))
    assert log_depth_gradient_error(depth, truth).item() == pytest.approx(np.mean(expected), abs=1e-9)


@pytest.mark.parametrize("loss", [log_depth_error, log_depth_gradient_error], ids=lambda loss: loss.__name__)
def test_unknown_depth_has_no_gradient_and_known_depth_a_finite_one(loss):
    truth = 1.0 + torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    truth[..., :3] = 0.0
    depth = torch.full_like(truth, 1e-5)
    depth[..., 4:] = 2.0
    depth.requires_grad_()
    loss(depth, truth).backward()
    assert torch.isfinite(depth.grad).all()
    assert (depth.grad[..., :3] == 0).all() and (depth.grad[..., 5:] != 0).any()


# Pixels


def test_pixel_classes_are_cross_entropy_of_what_is_known():
    logits = torch.randn(2, NUM_CLASSES, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels = torch.full((2, 3, 4), UNKNOWN, dtype=torch.uint8)
    labels[0, 0, 0], labels[1, 2, 3], labels[0, 1, 1] = FLOOR, NUM_CLASSES, 0
    p = torch.softmax(logits, dim=1)
    expected = -(torch.log(p[0, FLOOR - 1, 0, 0]) + torch.log(p[1, NUM_CLASSES - 1, 2, 3])) / 2
    torch.testing.assert_close(image_class_error(logits, labels), expected)
    assert image_class_error(logits, torch.full_like(labels, UNKNOWN)) == 0
    sure = (
        100.0 * torch.nn.functional.one_hot((labels.long() - 1).clamp(0, 10), NUM_CLASSES).permute(0, 3, 1, 2).double()
    )
    assert image_class_error(sure, labels) < 1e-9
