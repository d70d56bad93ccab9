"""Scores of one voxel map against another: SC-IoU (geometry) and mIoU (the 11 classes)."""

from __future__ import annotations

import numpy as np

from sgrocc.evaluation.occupancy import Occupancy
from sgrocc.labels import CLASS_LABELS, CLASS_NAMES, GENERIC, UNKNOWN

_EPSILON = 1e-5


def score(prediction: Occupancy, truth: Occupancy) -> dict:
    """Score `prediction` on the voxels that `truth` knows; outside its box, and where unknown, it is not occupied.

    The result holds `sc_iou`, `precision`, `recall` of occupied voxels (None where nothing is there to divide by);
    `miou`, the mean over all 11 classes of TP / (TP + FP + FN + 1e-5), a class that occurs nowhere counting as 0;
    `per_class` {name: IoU, or None for a class that occurs nowhere}; and `counts` of voxels: `scored`,
    `occupied_truth`, `occupied_prediction`, `true_positive`, `false_positive`, `false_negative`. Where every occupied
    voxel of the truth is of the generic class `objects`, it carries no classes: `miou` and the classes are None.

    Raises ValueError where the maps lie in different frames, or their voxels do not coincide.
    """
    if prediction.frame_id != truth.frame_id:
        raise ValueError(
            f"the prediction lies in the frame '{prediction.frame_id}' and the truth in '{truth.frame_id}': "
            "make both in one frame"
        )
    prediction = prediction.resampled_to(truth.grid)
    known = truth.labels != UNKNOWN
    occupied, truly_occupied = prediction.occupied[known], truth.occupied[known]
    labels, true_labels = prediction.labels[known], truth.labels[known]

    true_positive = int(np.count_nonzero(occupied & truly_occupied))
    false_positive = int(np.count_nonzero(occupied) - true_positive)
    false_negative = int(np.count_nonzero(truly_occupied) - true_positive)

    miou, per_class = None, dict.fromkeys(CLASS_NAMES)
    if (true_labels[truly_occupied] != GENERIC).any():
        ious = []
        for label, name in zip(CLASS_LABELS, CLASS_NAMES, strict=True):
            intersection = np.count_nonzero((labels == label) & (true_labels == label))
            union = np.count_nonzero((labels == label) | (true_labels == label))
            ious.append(intersection / (union + _EPSILON))
            per_class[name] = ious[-1] if union else None
        miou = float(np.mean(ious))

    return {
        "sc_iou": _ratio(true_positive, true_positive + false_positive + false_negative),
        "precision": _ratio(true_positive, true_positive + false_positive),
        "recall": _ratio(true_positive, true_positive + false_negative),
        "miou": miou,
        "per_class": per_class,
        "counts": {
            "scored": int(np.count_nonzero(known)),
            "occupied_truth": true_positive + false_negative,
            "occupied_prediction": true_positive + false_positive,
            "true_positive": true_positive,
            "false_positive": false_positive,
            "false_negative": false_negative,
        },
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
