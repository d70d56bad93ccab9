"""Quaternions (w, x, y, z) in torch; the twins of sgrocc.geometry.pose."""

from __future__ import annotations

import torch


def quaternion_to_matrix(quaternions: torch.Tensor) -> torch.Tensor:
    """(..., 4) unit quaternions to (..., 3, 3) rotation matrices."""
    w, x, y, z = quaternions.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def multiply_quaternions(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Hamilton product a * b of (..., 4) quaternions; it rotates by b first, then by a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def normalised(quaternions: torch.Tensor) -> torch.Tensor:
    """(..., 4) of length 1; zero where they are zero."""
    # See `unit` in rays.py for why nothing is added.
    return quaternions / torch.sqrt((quaternions * quaternions).sum(dim=-1, keepdim=True).clamp_min(1e-12))


def turn_to(directions: torch.Tensor) -> torch.Tensor:
    """(..., 4): the shortest turn of the z axis to unit (..., 3) directions, none of which may be -z."""
    x, y, z = directions.unbind(-1)
    return normalised(torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=-1))
