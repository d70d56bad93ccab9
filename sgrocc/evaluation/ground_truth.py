"""Ground truth from depth: which voxels a posed RGB-D recording shows to be occupied or free.

python -m sgrocc.evaluation.ground_truth --sequence DIR --out GT.npz
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from sgrocc.evaluation.occupancy import Occupancy, empty_labels
from sgrocc.geometry import PinholeCamera, Pose, VoxelGrid
from sgrocc.labels import FREE, GENERIC, UNKNOWN

#: Voxels added on every side when the counted box must grow, so that it seldom does.
_GROWTH_VOXELS = 32


class DepthTruth:
    """Counts, per voxel, the frames that hit it and the frames that see through it.

    A frame hits a voxel when one of its valid depth pixels falls inside. It sees through a voxel when the voxel's
    centre projects onto a valid pixel whose depth is more than `margin_m` beyond the centre. A pixel is valid from
    `min_depth_m` to `max_depth_m`. Voxels are cubes of `resolution` metres with a corner at the world's origin.
    """

    def __init__(
        self, resolution: float = 0.08, margin_m: float = 0.12, min_depth_m: float = 0.3, max_depth_m: float = 4.0
    ) -> None:
        if not (resolution > 0 and margin_m >= 0 and 0 < min_depth_m < max_depth_m < np.inf):
            raise ValueError(
                f"a resolution of {resolution} m, a margin of {margin_m} m and depths from {min_depth_m} to "
                f"{max_depth_m} m make no sense: use positive lengths, the nearer depth first"
            )
        self.resolution = float(resolution)
        self.margin_m = margin_m
        self.min_depth_m = min_depth_m
        self.max_depth_m = max_depth_m
        # World voxel index of the counts' voxel (0, 0, 0), and the counts; None until something was seen.
        self._low: np.ndarray | None = None
        self._hits = self._see_throughs = np.zeros((0, 0, 0), np.uint32)

    def add(self, depth: np.ndarray, camera: PinholeCamera, camera_to_world: Pose) -> None:
        """Count one frame. depth: (h, w) float32, metres along z, of the camera's size; a frame without valid depth
        counts nothing. Raises ValueError where the sizes differ, or the poses span more than a dense box can hold.
        """
        points, valid = points_of(depth, camera, camera_to_world, self.min_depth_m, self.max_depth_m)
        if not len(points):
            return
        valid_depth = np.where(valid, depth, 0.0)

        reach_m = float(valid_depth.max())
        corners = np.array([[u, v] for u in (-0.5, camera.width - 0.5) for v in (-0.5, camera.height - 0.5)])
        far_corners = camera_to_world.apply(camera.back_project(corners, np.full(4, reach_m)))
        # The margin takes up the rounding of points on the very edge of the image.
        frustum = VoxelGrid.covering(
            np.concatenate([far_corners, camera_to_world.translation[None]]), self.resolution, margin_voxels=1
        )
        low = np.rint(frustum.origin / self.resolution).astype(np.int64)
        box = self._box(low, frustum.shape)

        # A mask, not a count: a frame hits a voxel at most once.
        x, y, z = frustum.index_of(points).T
        hit = np.zeros(frustum.shape, bool)
        hit[x, y, z] = True
        self._hits[box] += hit
        self._see_throughs[box] += self._seen_through(frustum, valid_depth, camera, camera_to_world, reach_m)

    def result(self, frame_id: str) -> Occupancy:
        """Occupied (generic) where hits >= 1 and hits >= see-throughs, free where seen through more often than hit,
        else unknown; the probability is hits / (hits + see-throughs). Raises ValueError where no depth was valid.
        """
        if self._low is None:
            raise ValueError(
                f"no frame has depth from {self.min_depth_m:g} to {self.max_depth_m:g} m: "
                "check the unit of the recording's depth"
            )
        touched = np.argwhere(self._hits + self._see_throughs > 0)
        hits, see_throughs = (counts[tuple(touched.T)] for counts in (self._hits, self._see_throughs))
        labels = np.where(hits >= np.maximum(see_throughs, 1), GENERIC, FREE).astype(np.uint8)
        probabilities = (hits / (hits + see_throughs)).astype(np.float32)
        return Occupancy.from_voxels(touched + self._low, labels, probabilities, self.resolution, frame_id)

    def _seen_through(
        self, frustum: VoxelGrid, valid_depth: np.ndarray, camera: PinholeCamera, camera_to_world: Pose, reach_m: float
    ) -> np.ndarray:
        """Which voxels of `frustum` this frame sees through; bool, of the frustum's shape."""
        centres = camera_to_world.inverse().apply(frustum.centres().reshape(-1, 3))
        candidates = np.flatnonzero((centres[:, 2] > 0) & (centres[:, 2] < reach_m - self.margin_m))
        pixels, z = camera.project(centres[candidates])
        rows, columns, inside = camera.pixel_index(pixels)
        # Invalid pixels hold depth 0, which is beyond nothing.
        through = inside & (valid_depth[rows, columns] > z + self.margin_m)
        seen_through = np.zeros(frustum.shape, bool)
        seen_through.reshape(-1)[candidates[through]] = True
        return seen_through

    def _box(self, low: np.ndarray, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        """Slices of the counts for a box of world voxels; the counts grow where they do not hold it."""
        high = low + shape
        if self._low is None:
            self._low = low
        held_high = self._low + self._hits.shape
        if (low < self._low).any() or (high > held_high).any():
            new_low = np.where(low < self._low, low - _GROWTH_VOXELS, self._low)
            new_high = np.where(high > held_high, high + _GROWTH_VOXELS, held_high)
            before = (self._low - new_low).astype(int)
            after = (new_high - held_high).astype(int)
            empty_labels(tuple(int(n) for n in new_high - new_low))  # raises where the box is absurd
            self._hits, self._see_throughs = (
                np.pad(counts, np.stack([before, after], axis=1)) for counts in (self._hits, self._see_throughs)
            )
            self._low = new_low
        return tuple(slice(int(a), int(b)) for a, b in zip(low - self._low, high - self._low, strict=True))


def points_of(
    depth: np.ndarray, camera: PinholeCamera, camera_to_world: Pose, min_depth_m: float, max_depth_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """The valid depth pixels of a frame: (N, 3) float64 points in the world, metres, and the (h, w) bool mask.

    Raises ValueError where depth (h, w) is not of the camera's size.
    """
    if depth.shape != (camera.height, camera.width):
        raise ValueError(
            f"the depth is {depth.shape} and the camera {(camera.height, camera.width)} (rows, columns): "
            "pass camera.resized(depth width, depth height)"
        )
    with np.errstate(invalid="ignore"):
        valid = (depth >= min_depth_m) & (depth <= max_depth_m)
    rows, columns = np.nonzero(valid)
    pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
    return camera_to_world.apply(camera.back_project(pixels, depth[valid].astype(np.float64))), valid


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Ground truth occupancy of a posed RGB-D recording, from its depth.")
    parser.add_argument("--sequence", required=True, help="folder of the recording")
    parser.add_argument("--out", required=True, help="npz file to write")
    parser.add_argument("--resolution", type=float, default=0.08, help="voxel size in metres (default 0.08)")
    parser.add_argument("--frame-id", default="odom", help="name of the world frame (default odom)")
    options = parser.parse_args(arguments)

    from sgrocc.datasets.posed_rgbd import PosedRgbdSequence

    try:
        sequence = PosedRgbdSequence(options.sequence)
        truth = DepthTruth(options.resolution)
        for frame in sequence:
            truth.add(frame.depth, sequence.depth_camera, frame.pose)
        occupancy = truth.result(options.frame_id)
        occupancy.save(options.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    free = np.count_nonzero(occupancy.labels == FREE)
    unknown = np.count_nonzero(occupancy.labels == UNKNOWN)
    occupied = np.count_nonzero(occupancy.occupied)
    print(f"{options.out}: {occupied} occupied, {free} free, {unknown} unknown voxels of {options.resolution:g} m")
    return 0


if __name__ == "__main__":
    sys.exit(main())
