"""The Temporal Manager: one persistent set of Gaussians, and the voxel layer that is splatted from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sgrocc.experts import Prediction
from sgrocc.gaussians import MAX_SCALE_M, MIN_SCALE_M, Gaussians
from sgrocc.geometry import PinholeCamera, Pose
from sgrocc.labels import FREE, NUM_CLASSES, STRUCTURAL, UNKNOWN, most_likely_class
from sgrocc.memory.confidence import (
    CONFIDENCES,
    Confirmation,
    geometric_confidence,
    hybrid_confidence,
    semantic_confidence,
)
from sgrocc.memory.pool import GaussianPool
from sgrocc.memory.recall import RAY_STEPS, History
from sgrocc.memory.visibility import (
    MEASURED_SHARE,
    deviation_m,
    frustum_blocks,
    look,
    see_through_margin_m,
    voxels_of_pixels,
)
from sgrocc.memory.voxels import VoxelBlocks, VoxelUpdate, unique_rows, voxels_of
from sgrocc.splatting import BLOCK, class_probabilities, softmax, splat_blocks
from sgrocc.stages import stage

#: What learns from the past (eq. 4): N Gaussians of a frame, one per voxel, in the camera frame, the (N, history_size)
#: history of their places, and the frame's depth with its camera, 0 where it is too rough to hold a surface by, to N
#: Gaussians in the camera frame.
Fusion = Callable[[Gaussians, np.ndarray, np.ndarray, PinholeCamera], Gaussians]

#: In the memory every voxel may hold a Gaussian of its own: none needs to stand for its neighbours. In voxels.
_WIDEST = 0.75

#: A voxel keeps its Gaussian while its occupancy has at least this share of its threshold.
_KEPT = 0.5

#: A guess is an occupancy above this.
_LEAST_GUESS = 0.02

#: A depth is exact where its standard deviation is at most this, in voxels.
_EXACT = 0.5 + 1e-6

#: A depth holds surfaces (GRM) where its standard deviation is at most this, metres: held by a network's own, which may
#: be wrong by half a metre, nothing could be put right.
_HOLDING_SIGMA_M = 0.1

#: Bound of the weight of guesses: one look outweighs them, however often they were made.
_MAX_GUESSED_WEIGHT = 0.25

#: The layers of voxels that `GaussianMemory.state` holds.
_KEPT_LAYERS = ("occupancy", "weight", "measured", "seen_through", "evidence", "label", "probability")

#: So many frames, that see it well, hold a class against new ones; and so many of those that guess.
_NAMING_FRAMES, _GUESSING_FRAMES = 32.0, 4.0

#: A class counts as at least so likely: no single frame can rule one out.
_LEAST_LIKELY = 1e-3


@dataclass(frozen=True)
class MemoryConfig:
    """Settings of the memory; lengths in metres.

    resolution: edge of a voxel. occupied_threshold: mean occupancy from which a voxel is occupied. guessed_threshold:
    the same where no frame measured: what stays hidden is mostly solid, so little is needed to say so.
    free_margin_m: how far in front of the measured depth a voxel must be to count as looked through; at least two
    standard deviations of that depth.
    max_depth_m: depth beyond this is neither fused nor does it free space. max_gaussians: hard bound; the Gaussians
    unseen for longest go first. max_frames: how many frames at most stand against a new one that measures a voxel: how
    long a vanished thing stays, and how long a new one takes to appear.
    confidence: what confirms a remembered Gaussian: geometric (eq. 6), semantic (eq. 7), hybrid (eq. 8) or none, so
    that each observation replaces the last. temperature, lowest and highest confidence: eq. 7. frozen_below: update
    ratios under this leave a Gaussian untouched. aggregation: decoupled or additive. max_inferred_m: how far behind the
    surface in its pixel a Gaussian is believed. radius_m: what lies further from the camera is forgotten, block by
    block (0: nothing). decay_frames: when so many frames have not looked at a block, its things that can be moved are
    forgotten (0: never); walls, windows, floors and ceilings stay.
    Raises ValueError for values that make no sense.
    """

    resolution: float = 0.08
    occupied_threshold: float = 0.5
    guessed_threshold: float = 0.2
    free_margin_m: float = 0.12
    min_depth_m: float = 0.3
    max_depth_m: float = 4.0
    max_gaussians: int = 200_000
    max_frames: float = 8.0
    confidence: str = "hybrid"
    temperature: float = 1.4
    lowest_confidence: float = 0.0
    highest_confidence: float = 1.0
    frozen_below: float = 0.05
    aggregation: str = "decoupled"
    max_inferred_m: float = 0.5
    radius_m: float = 0.0
    decay_frames: int = 0

    def __post_init__(self) -> None:
        for name in (
            "resolution",
            "free_margin_m",
            "min_depth_m",
            "max_depth_m",
            "max_gaussians",
            "max_frames",
            "temperature",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be greater than zero")
        if not self.max_inferred_m >= 0:
            raise ValueError(f"max_inferred_m is {self.max_inferred_m}: it must not be negative")
        for name in ("occupied_threshold", "guessed_threshold"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if self.min_depth_m >= self.max_depth_m:
            raise ValueError(f"min_depth_m {self.min_depth_m} must be less than max_depth_m {self.max_depth_m}")
        if self.radius_m != 0 and self.radius_m <= self.max_depth_m:
            raise ValueError(
                f"radius_m {self.radius_m} must be greater than max_depth_m {self.max_depth_m}, or 0 to forget nothing"
            )
        if self.decay_frames < 0:
            raise ValueError(f"decay_frames is {self.decay_frames}: it must not be negative")
        if self.confidence not in CONFIDENCES:
            raise ValueError(f"confidence is {self.confidence!r}: it must be one of {', '.join(CONFIDENCES)}")
        if not 0 <= self.lowest_confidence < self.highest_confidence <= 1:
            raise ValueError("lowest_confidence must be less than highest_confidence, both between 0 and 1")


@dataclass(frozen=True)
class FuseStatistics:
    """What became of the Gaussians of one frame: counts."""

    inserted: int
    updated: int
    frozen: int
    occluded: int
    guessed: int
    dropped_by_conflict: int
    refused_by_conflict: int
    refused_guesses: int
    discarded_by_bound: int
    unusable: int


class GaussianMemory:
    """Fuses predictions with poses into a persistent map. Not thread-safe: one worker owns it.

    Each frame's Gaussians are splatted into what the frame sees; a voxel's occupancy is the mean of what frames said
    of it, weighted by how well they saw it, and what was measured is no longer guessed at. Its class is the most likely
    one by what all frames that found something there said: the logarithms of the probabilities that they gave it add
    up. In each voxel lives at most one Gaussian; the hash of voxels associates the Gaussians of a new frame with
    remembered ones. Where the occupancy falls, the Gaussian conflicts with free space and is dropped, and the frame's
    own Gaussian on that ray takes its place at the surface. What is hidden behind a surface is kept as it is.
    """

    def __init__(self, config: MemoryConfig | None = None, fusion: Fusion | None = None) -> None:
        self.config = config or MemoryConfig()
        self.fusion = fusion
        self._pool = GaussianPool()
        self._voxels = VoxelBlocks(
            gaussian=(np.int32, -1),
            occupancy=(np.float32, 0.0),
            weight=(np.float32, 0.0),
            measured=(np.bool_, False),
            hit=(np.float32, 0.0),  # all zero between frames
            seen_through=(np.bool_, False),
            evidence=(np.float32, 0.0, NUM_CLASSES),
            label=(np.uint8, UNKNOWN),
            probability=(np.float32, 0.0),
        )
        self._voted = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._looked = np.zeros(0, np.int64)  # by slot: the last frame that looked at the block
        self._pruned_at: np.ndarray | None = None
        self.frames = 0
        self.statistics: FuseStatistics | None = None
        self._confirmed: tuple[np.ndarray, Confirmation] | None = None

    def clear(self) -> None:
        """Forget everything."""
        self._pool.clear()
        self._voxels.clear()
        self._voted = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._looked = np.zeros(0, np.int64)
        self._pruned_at = None
        self.frames = 0
        self.statistics = self._confirmed = None

    def __len__(self) -> int:
        """The number of remembered Gaussians."""
        return len(self._pool)

    def gaussians(self) -> Gaussians:
        """The remembered Gaussians, in the global frame."""
        return self._pool.gaussians(self._pool.alive())

    @property
    def confirmation(self) -> Confirmation | None:
        """How far the last frame confirmed the Gaussians that it saw again; None before the first."""
        if self._confirmed is None:
            return None
        sees, looked_at = self._confirmed
        return looked_at.select(sees)

    def voted(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the voxels of points (N, 3), metres in the global frame: their mean occupancy, and which share of it the
        last frame's splat has (0: it said nothing, or what it said was overruled).
        """
        address = self._located(points)
        occupancy, share = self._at("occupancy", address), np.zeros(len(address), np.float32)
        addresses, shares = self._voted
        if len(addresses):
            order = np.argsort(addresses)
            addresses, shares = addresses[order], shares[order]
            row = np.minimum(np.searchsorted(addresses, address), len(addresses) - 1)
            share = np.where(addresses[row] == address, shares[row], share)
        return occupancy, share

    def recall(self, means: np.ndarray, camera_position: np.ndarray) -> History:
        """What is remembered of the voxels of points (N, 3), and before and behind them as seen from a camera at (3,);
        metres in the global frame.
        """
        address = self._located(means)
        index = np.where(address >= 0, self._at("gaussian", address), -1)
        lives = index >= 0
        held = index[lives]
        features = np.zeros((len(index), self._pool.feature_size), np.float32)
        probabilities = np.zeros((len(index), NUM_CLASSES), np.float32)
        guess, opacities = np.zeros(len(index), bool), np.zeros(len(index), np.float32)
        features[lives] = self._pool.arrays["features"][held]
        probabilities[lives] = softmax(self._pool.arrays["logits"][held])
        guess[lives], opacities[lives] = self._pool.guess[held], self._pool.arrays["opacities"][held]
        ray = means - camera_position
        ray = ray / np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-9)
        along = [self._located(means + step * self.config.resolution * ray) for step in RAY_STEPS]
        occupancies, weights = (
            np.stack([self._at(layer, place) for place in (address, *along)], axis=1)
            for layer in ("occupancy", "weight")
        )
        weights = weights / self.config.max_frames
        seen = self._at("seen_through", address)
        return History(features, probabilities, lives, guess, opacities, seen, occupancies, weights)

    def clear_box(self, low: tuple[float, float, float], high: tuple[float, float, float]) -> VoxelUpdate:
        """Forget the voxels whose centres lie in a box from `low` to `high`, metres in the global frame; returns what
        changed: they are unknown. Raises ValueError for a box that is none.
        """
        low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            raise ValueError(f"there is no box from {low.tolist()} to {high.tolist()}: give its lower corner first")
        addresses = self._voxels.addresses(self._voxels.used()).ravel()
        centres = (self._voxels.voxels(addresses) + 0.5) * self.config.resolution
        inside = addresses[((centres >= low) & (centres <= high)).all(axis=1)]
        self._forget(inside)
        return self._update_of(self._relabel(inside))

    def _located(self, points: np.ndarray) -> np.ndarray:
        """(N,) addresses of the voxels of points, -1 where nothing is known."""
        return self._voxels.locate(voxels_of(points, self.config.resolution))

    def _at(self, layer: str, address: np.ndarray) -> np.ndarray:
        """A layer's values, zero where the address is -1."""
        values = np.zeros(len(address), self._voxels.layer(layer).dtype)
        values[address >= 0] = self._voxels.layer(layer)[address[address >= 0]]
        return values

    def warm_up(self) -> None:
        """Compile the kernels (seconds, once per machine), so that the first frame is not late."""
        camera = PinholeCamera(2, 2, 1.0, 1.0, 0.5, 0.5)
        seed = Gaussians(*(np.full((1, w) if w else 1, 0.5, np.float32) for w in (3, 3, 4, 0, 11, 1)))
        prediction = Prediction(np.ones((2, 2), np.float32), camera, seed, False, (0.1, 0.0))
        GaussianMemory(self.config).fuse(prediction, Pose.identity())

    def snapshot(self) -> VoxelUpdate:
        """All known voxels, for a reader that joins late."""
        return self._update_of(np.flatnonzero(self._voxels.layer("label") != UNKNOWN))

    def state(self) -> dict[str, np.ndarray]:
        """All that a memory of the same settings needs to go on from here: see `restore`."""
        slots, alive = self._voxels.used(), self._pool.alive()
        addresses = self._voxels.addresses(slots).ravel()
        place = np.full(len(self._voxels.coordinates), -1, np.int64)
        place[slots] = np.arange(len(slots))
        home = self._pool.address[alive]
        return {
            "frames": np.array([self.frames], np.int64),
            "blocks": self._voxels.coordinates[slots],
            "looked": self._looked[slots],
            **{f"voxel_{name}": self._voxels.layer(name)[addresses] for name in _KEPT_LAYERS},
            **{f"gaussian_{name}": array[alive] for name, array in self._pool.arrays.items()},
            "gaussian_home": place[home // BLOCK**3] * BLOCK**3 + home % BLOCK**3,
            "gaussian_last_seen": self._pool.last_seen[alive],
            "gaussian_guess": self._pool.guess[alive],
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `state` gave; what comes from a file is checked by `map_file.load`."""
        self.clear()
        self.frames = int(state["frames"][0])
        slots = self._voxels.slots(state["blocks"], create=True)
        self._looked = state["looked"].copy()
        for name in _KEPT_LAYERS:
            self._voxels.layer(name)[:] = state[f"voxel_{name}"]
        arrays = {name: state[f"gaussian_{name}"] for name in self._pool.arrays}
        self._pool.clear(arrays["features"].shape[1])
        home = self._voxels.addresses(slots).ravel()[state["gaussian_home"]]
        index = self._pool.insert(Gaussians(**arrays), home, self.frames)
        self._pool.last_seen[index], self._pool.guess[index] = state["gaussian_last_seen"], state["gaussian_guess"]
        self._voxels.layer("gaussian")[home] = index

    @stage("fuse")
    def fuse(self, prediction: Prediction, camera_to_world: Pose) -> VoxelUpdate:
        """Fuse one frame and return the voxels that changed.

        camera_to_world: pose of the prediction's camera in the global frame at the image's stamp. Raises ValueError,
        with the map unchanged, where the prediction's depth does not fit its camera or its features do not fit the
        memory's.
        """
        depth, camera = self._checked_depth(prediction)
        usable = _usable(prediction.gaussians)
        observed = prediction.gaussians.select(usable).transformed(camera_to_world)
        width = observed.features.shape[1]
        if not len(self._pool):
            self._pool.clear(width)
        elif len(observed) and width != self._pool.feature_size:
            raise ValueError(
                f"the expert's features have {width} numbers and the memory's {self._pool.feature_size}: restart the "
                "nodes after changing the model"
            )
        guess, believed = self._told_apart(observed, depth, camera, camera_to_world, prediction.depth_sigma_m)
        guesses, guess_voxels = merge_per_voxel(observed.select(guess & believed), self.config.resolution)
        observed, voxels = merge_per_voxel(observed.select(~guess & believed), self.config.resolution)
        broken = 0
        if self.fusion is not None:
            observed, guesses, broken = self._fused(observed, guesses, prediction, depth, camera_to_world)
        self.frames += 1

        said = Gaussians.joined(observed, guesses)
        if self.fusion is not None:
            # What it moved may share a voxel.
            guesses, guess_voxels = merge_per_voxel(guesses, self.config.resolution)
            observed, voxels = merge_per_voxel(observed, self.config.resolution)
        observed, guesses = (self._narrow(gaussians) for gaussians in (observed, guesses))
        hit, place = (self._voxels.locate(v, create=True) for v in (voxels, guess_voxels))
        surfaces = observed, hit
        seen = self._vote(said, surfaces, prediction, depth, camera_to_world)
        holds = self._voxels.layer("gaussian")
        inhabited = seen[holds[seen] >= 0]
        conflicting = holds[inhabited[~self._solid(inhabited, _KEPT)]].astype(np.int64)
        self._remove(conflicting)

        remembered = holds[hit].astype(np.int64)
        is_new = remembered < 0
        allowed = is_new & self._solid(hit, _KEPT)
        view = prediction, depth, camera, camera_to_world
        updated, frozen, occluded = self._update(observed.select(~is_new), remembered[~is_new], *view)
        inserted = self._insert(observed.select(allowed), hit[allowed])

        remembered = holds[place].astype(np.int64)
        open_to_guesses = ~self._voxels.layer("measured")[place]
        again = (remembered >= 0) & open_to_guesses
        again[again] = self._pool.guess[remembered[again]]
        self._guess_again(guesses.select(again), remembered[again], prediction.semantic)
        unseen = (remembered < 0) & open_to_guesses & self._solid(place, _KEPT)
        guessed = self._insert(guesses.select(unseen), place[unseen], guess=True)
        surplus = self._surplus()
        # What is forgotten for want of room begins anew.
        forgotten = self._pool.address[surplus]
        for layer in ("occupancy", "weight", "measured", "evidence"):
            self._voxels.layer(layer)[forgotten] = 0
        self._remove(surplus)

        self.statistics = FuseStatistics(
            inserted=len(inserted),
            updated=updated,
            frozen=frozen,
            occluded=occluded,
            guessed=len(guessed),
            dropped_by_conflict=len(conflicting),
            refused_by_conflict=int((is_new & ~allowed).sum()),
            refused_guesses=int((~believed).sum() + (~again & ~unseen).sum()),
            discarded_by_bound=len(surplus),
            unusable=int((~usable).sum()) + broken,
        )
        self._note_looks(seen)
        changed = self._relabel(np.concatenate([seen, forgotten, self._fade()]))
        far = self._beyond(camera_to_world.translation)
        if not len(far):
            return self._update_of(changed)
        return self._update_of(changed[~np.isin(changed // BLOCK**3, far)]).joined(self._forget_blocks(far))

    # -- the steps of fuse ---------------------------------------------------------------------------------------

    def _checked_depth(self, prediction: Prediction) -> tuple[np.ndarray, PinholeCamera]:
        """The depth within range, 0 elsewhere, and its camera."""
        depth, camera = prediction.depth, prediction.camera
        if depth.shape != (camera.height, camera.width):
            raise ValueError(
                f"the depth image is {depth.shape[1]} x {depth.shape[0]} pixels and its camera "
                f"{camera.width} x {camera.height}: scale the camera with the image"
            )
        with np.errstate(invalid="ignore"):
            valid = (depth >= self.config.min_depth_m) & (depth <= self.config.max_depth_m)
        return np.where(valid, depth, np.float32(0)), camera

    def _told_apart(
        self,
        observed: Gaussians,
        depth: np.ndarray,
        camera: PinholeCamera,
        camera_to_world: Pose,
        depth_sigma_m: tuple[float, float],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which of a frame's Gaussians (N,) are guesses, as they lie where the frame does not see, and which, of these
        and of the others, are believed.
        """
        config = self.config
        z, surface, inside = _surface_at(observed.means, depth, camera, camera_to_world)
        measured = surface > 0
        margin_m = see_through_margin_m(surface, config.free_margin_m, depth_sigma_m)
        reach_m = surface + max(config.max_inferred_m, config.free_margin_m)
        in_range = inside & (z > 0) & (z <= config.max_depth_m)
        believed = in_range & np.where(measured, z <= reach_m, config.max_inferred_m > 0)
        return ~measured | (z > surface + margin_m), believed

    def _fused(
        self,
        observed: Gaussians,
        guesses: Gaussians,
        prediction: Prediction,
        depth: np.ndarray,
        camera_to_world: Pose,
    ) -> tuple[Gaussians, Gaussians, int]:
        """What the learned fusion makes of a frame's Gaussians, and how many it broke."""
        camera = prediction.camera
        both, count = Gaussians.joined(observed, guesses), len(observed)
        z, surface, _ = _surface_at(both.means, depth, camera, camera_to_world)
        behind_m = np.where(surface > 0, z - surface, 0.0)
        remembered = self.recall(both.means, camera_to_world.translation)
        history = remembered.vector(np.arange(len(both)) >= count, behind_m)
        holding = np.where(deviation_m(depth, prediction.depth_sigma_m) <= _HOLDING_SIGMA_M, depth, np.float32(0))
        found = self.fusion(both.transformed(camera_to_world.inverse()), history, holding, camera)
        if len(found) != len(both) or found.features.shape != both.features.shape:
            raise ValueError(
                f"the fusion made {len(found)} Gaussians with {found.features.shape[1]} features of {len(both)} with "
                f"{both.features.shape[1]}: it does not belong to this expert"
            )
        usable = _usable(found)
        found = found.transformed(camera_to_world)
        seen, hidden = (chosen.nonzero()[0] for chosen in (usable[:count], usable[count:]))
        return found.select(seen), found.select(count + hidden), int((~usable).sum())

    def _narrow(self, gaussians: Gaussians) -> Gaussians:
        widest = min(MAX_SCALE_M, _WIDEST * self.config.resolution)
        return replace(gaussians, scales=np.clip(gaussians.scales, MIN_SCALE_M, widest))

    def _vote(
        self,
        said: Gaussians,
        surfaces: tuple[Gaussians, np.ndarray],
        prediction: Prediction,
        depth: np.ndarray,
        camera_to_world: Pose,
    ) -> np.ndarray:
        """Bring occupancy and classes of the voxels in view up to date with a frame's Gaussians; returns the addresses.

        surfaces: the Gaussians that are no guesses, one per voxel, and those voxels' addresses. Where one of them lies
        at the depth in its pixel, its voxel was measured and is occupied at least as that Gaussian's opacity says, as
        it may be too small to reach the centre; where n pixels of an exact depth end, to 1 - 1/2^n at least. Only if a
        pixel looks at it: no other would show that the thing is gone. Of all others, what was looked through is free,
        whatever reaches over from a surface.
        """
        config, voxels = self.config, self._voxels
        camera, depth_sigma_m = prediction.camera, prediction.depth_sigma_m
        self._voted = np.zeros(0, np.int64), np.zeros(0, np.float32)
        furthest = float(depth.max(initial=0.0))
        if furthest <= 0 and not len(said):
            return self._voted[0]
        furthest = min(furthest + config.max_inferred_m, config.max_depth_m) if furthest > 0 else config.max_depth_m
        # From the camera itself on: the voxels between the lens and min_depth_m are looked through as well.
        blocks = frustum_blocks(camera, camera_to_world, config.resolution, 1e-3, furthest)
        view = look(blocks, depth, camera, camera_to_world, config.resolution, config.free_margin_m, depth_sigma_m)
        some = (view.weight > 0).any(axis=1)
        slots = voxels.slots(blocks[some], create=True)
        occupancy, scores = splat_blocks(
            said, blocks[some], config.resolution, aggregation=config.aggregation, classes=prediction.semantic
        )
        occupancy = occupancy.reshape(len(slots), -1)
        weight, seen, measured = view.weight[some], view.seen[some], view.measured[some]

        z, surface, _ = _surface_at(surfaces[0].means, depth, camera, camera_to_world)
        margin_m = see_through_margin_m(surface, config.free_margin_m, depth_sigma_m)
        hits = np.flatnonzero((surface > 0) & (z <= surface + MEASURED_SHARE * margin_m))
        hit, opacities = surfaces[1][hits], surfaces[0].opacities[hits]
        exact = np.where(deviation_m(depth, depth_sigma_m) <= _EXACT * config.resolution, depth, np.float32(0))
        ends, pixels = voxels_of_pixels(exact, camera, camera_to_world, config.resolution)
        ended = voxels.locate(ends)
        ended, pixels = ended[ended >= 0], pixels[ended >= 0]
        own_layer, at = voxels.layer("hit"), voxels.addresses(slots)
        own_layer[ended] = 1 - 0.5**pixels
        own_layer[hit] = np.maximum(own_layer[hit], opacities)
        own = own_layer[at]
        own_layer[hit] = own_layer[ended] = 0
        measured |= own > 0
        # Where it does not look, a frame that has nothing to say says nothing: not that there is nothing.
        weight = np.where(measured | (occupancy > _LEAST_GUESS), weight, 0)
        chosen = (weight > 0) & (measured | ~voxels.layer("measured")[at])
        address, weight, seen, measured, own = (array[chosen] for array in (at, weight, seen, measured, own))
        splatted = occupancy[chosen]
        seen &= own == 0
        found = np.where(seen, np.float32(0), np.maximum(splatted, own))
        total = voxels.layer("weight")[address] + weight
        # However much stands against it, a frame that measures has its say: a vanished thing goes as fast far away.
        share = np.maximum(weight / total, np.where(measured, np.float32(1 / (1 + config.max_frames)), 0))
        mean = voxels.layer("occupancy")
        stood = self._solid(address, _KEPT)
        mean[address] += share * (found - mean[address])
        bound = np.where(measured, config.max_frames, min(_MAX_GUESSED_WEIGHT, config.max_frames))
        voxels.layer("weight")[address] = np.minimum(total, bound)
        voxels.layer("measured")[address] |= measured
        voxels.layer("seen_through")[address] |= seen
        # What stands there next may be something else.
        voxels.layer("evidence")[address[stood & ~self._solid(address, _KEPT)]] = 0
        if prediction.semantic:
            named = np.flatnonzero((found > 0) & (splatted > 0))
            scores = scores.reshape(occupancy.size, -1)[np.flatnonzero(chosen)[named]]
            likely = np.log(np.maximum(class_probabilities(scores, config.aggregation), _LEAST_LIKELY))
            place, evidence = address[named], voxels.layer("evidence")
            vote = (weight * splatted)[named, None]
            # A few good looks outweigh what was guessed, however often.
            frames = np.where(measured, np.float32(_NAMING_FRAMES), np.float32(_GUESSING_FRAMES))[named, None]
            evidence[place] = (1 - vote / frames) * evidence[place] + vote * likely
        self._voted = address, np.where(found == splatted, share, np.float32(0))
        return address

    def _insert(self, gaussians: Gaussians, addresses: np.ndarray, guess: bool = False) -> np.ndarray:
        index = self._pool.insert(gaussians, addresses, self.frames, guess)
        self._voxels.layer("gaussian")[addresses] = index
        return index

    def _update(
        self,
        observed: Gaussians,
        index: np.ndarray,
        prediction: Prediction,
        depth: np.ndarray,
        camera: PinholeCamera,
        camera_to_world: Pose,
    ) -> tuple[int, int, int]:
        """Blend remembered Gaussians towards what was observed in their voxels, by the update ratio 1 - C_hyb.

        Returns the numbers of those that changed, and of those left alone as verified and as occluded.
        """
        old = self._pool.gaussians(index)
        self._pool.last_seen[index] = self.frames
        z, frame_depth, _ = _surface_at(old.means, depth, camera, camera_to_world)
        # Within a fraction of a voxel, depths agree, however sure of itself the expert is.
        sigma_m = np.maximum(deviation_m(frame_depth, prediction.depth_sigma_m), 0.25 * self.config.resolution)
        guess = self._pool.guess[index]
        # No depth to compare with, or a surface in front: the frame says nothing about this Gaussian.
        hidden = ((frame_depth <= 0) | (z > frame_depth + 3 * sigma_m)) & ~guess
        geometric = geometric_confidence(z, frame_depth, sigma_m)
        semantic = self._semantic_confidence(old, prediction.semantic)
        # A guess that is seen for the first time is no verified anchor: its tag is 0.
        confidence = hybrid_confidence(~guess, geometric, semantic, self.config.confidence)
        self._confirmed = ~hidden & ~guess, Confirmation(old, geometric, semantic, confidence)
        ratio = np.where(hidden, 0.0, 1.0 - confidence).astype(np.float32)
        moving = ratio >= self.config.frozen_below
        self._pool.write(index[moving], blend(old.select(moving), observed.select(moving), ratio[moving]))
        self._pool.guess[index] = False
        return int(moving.sum()), int((~moving & ~hidden).sum()), int(hidden.sum())

    def _guess_again(self, guesses: Gaussians, index: np.ndarray, semantic: bool) -> None:
        """Blend remembered guesses towards new ones: nothing was measured, so the classes alone confirm them."""
        old = self._pool.gaussians(index)
        self._pool.last_seen[index] = self.frames
        confirmed = (
            self._semantic_confidence(old, semantic) if self.config.confidence in ("hybrid", "semantic") else 0.0
        )
        ratio = np.broadcast_to(1.0 - confirmed, len(index)).astype(np.float32)
        moving = ratio >= self.config.frozen_below
        self._pool.write(index[moving], blend(old.select(moving), guesses.select(moving), ratio[moving]))

    def _semantic_confidence(self, gaussians: Gaussians, semantic: bool) -> np.ndarray | float:
        """Eq. 7; 1 where the expert knows no classes and can neither confirm nor deny one."""
        config = self.config
        if not semantic:
            return 1.0
        return semantic_confidence(
            gaussians.logits, config.temperature, config.lowest_confidence, config.highest_confidence
        )

    def _remove(self, index: np.ndarray) -> None:
        """Remove Gaussians from the pool and the hash."""
        self._voxels.layer("gaussian")[self._pool.address[index]] = -1
        self._pool.remove(index)

    def _surplus(self) -> np.ndarray:
        """Indices over the bound: the Gaussians unseen for longest. A little more than needed, so as not to sort
        the pool in every frame."""
        excess = len(self._pool) - self.config.max_gaussians
        if excess <= 0:
            return np.zeros(0, np.int64)
        alive = self._pool.alive()
        oldest = np.argsort(self._pool.last_seen[alive], kind="stable")
        return alive[oldest[: min(len(alive), excess + self.config.max_gaussians // 50)]]

    def _note_looks(self, addresses: np.ndarray) -> None:
        top = len(self._voxels.coordinates)
        if top > len(self._looked):
            self._looked = np.concatenate([self._looked, np.full(2 * top - len(self._looked), self.frames, np.int64)])
        self._looked[addresses // BLOCK**3] = self.frames

    def _fade(self) -> np.ndarray:
        """Forget movable things in blocks that nobody has looked at for `decay_frames`; returns their addresses."""
        config = self.config
        # Now and then: it asks all blocks.
        if not config.decay_frames or self.frames % max(1, config.decay_frames // 10):
            return np.zeros(0, np.int64)
        slots = self._voxels.used()
        old = slots[self._looked[slots] <= self.frames - config.decay_frames]
        addresses = self._voxels.addresses(old).ravel()
        label = self._voxels.layer("label")[addresses]
        gone = addresses[(label != FREE) & (label != UNKNOWN) & ~np.isin(label, STRUCTURAL)]
        self._forget(gone)
        self._looked[old] = self.frames  # asked again after as long
        return gone

    def _beyond(self, camera_position: np.ndarray) -> np.ndarray:
        """Slots of the blocks beyond `radius_m`; asked again when the camera has moved by a block."""
        edge_m = BLOCK * self.config.resolution
        moved = self._pruned_at is None or np.linalg.norm(camera_position - self._pruned_at) >= edge_m
        if not self.config.radius_m or not moved:
            return np.zeros(0, np.int64)
        self._pruned_at = np.array(camera_position)
        slots = self._voxels.used()
        centres = (self._voxels.coordinates[slots] + 0.5) * edge_m
        return slots[np.linalg.norm(centres - camera_position, axis=1) > self.config.radius_m]

    def _forget_blocks(self, slots: np.ndarray) -> VoxelUpdate:
        """Remove blocks; the update says that their voxels are unknown."""
        addresses = self._voxels.addresses(slots).ravel()
        known = addresses[self._voxels.layer("label")[addresses] != UNKNOWN]
        voxels = self._voxels.voxels(known)
        self._forget(addresses)
        self._voxels.remove(slots)
        return VoxelUpdate(voxels, np.full(len(known), UNKNOWN, np.uint8), np.zeros(len(known), np.float32))

    def _forget(self, addresses: np.ndarray) -> None:
        """As if nobody had ever looked there."""
        held = self._voxels.layer("gaussian")[addresses]
        self._remove(held[held >= 0].astype(np.int64))
        for layer in ("occupancy", "weight", "measured", "seen_through", "evidence"):
            self._voxels.layer(layer)[addresses] = 0

    def _relabel(self, addresses: np.ndarray) -> np.ndarray:
        """Bring label and probability up to date; returns the addresses where either changed."""
        layer = self._voxels.layer
        occupancy, threshold = layer("occupancy")[addresses], self._threshold(addresses)
        label = np.where(layer("seen_through")[addresses], np.uint8(FREE), np.uint8(UNKNOWN))
        solid = occupancy >= threshold
        label[solid] = most_likely_class(layer("evidence")[addresses[solid]])
        # Readers take 1/2 as the threshold.
        above = 0.5 + 0.5 * (occupancy - threshold) / (1 - threshold)
        occupancy = np.where(occupancy >= threshold, above, 0.5 * occupancy / threshold).astype(np.float32)
        differs = (label != layer("label")[addresses]) | (
            (label != UNKNOWN) & (np.abs(occupancy - layer("probability")[addresses]) > 0.01)
        )
        changed, first = np.unique(addresses[differs], return_index=True)
        layer("label")[changed] = label[differs][first]
        layer("probability")[changed] = occupancy[differs][first]
        return changed

    def _threshold(self, addresses: np.ndarray) -> np.ndarray:
        config, measured = self.config, self._voxels.layer("measured")[addresses]
        return np.where(measured, np.float32(config.occupied_threshold), np.float32(config.guessed_threshold))

    def _solid(self, addresses: np.ndarray, share: float = 1.0) -> np.ndarray:
        """Whether voxels reach that share of their threshold."""
        return self._voxels.layer("occupancy")[addresses] >= share * self._threshold(addresses)

    def _update_of(self, addresses: np.ndarray) -> VoxelUpdate:
        layer = self._voxels.layer
        return VoxelUpdate(self._voxels.voxels(addresses), layer("label")[addresses], layer("probability")[addresses])


def _usable(gaussians: Gaussians) -> np.ndarray:
    """(N,) bool: finite, as they should be, and within a kilometre of the camera."""
    return gaussians.finite() & (np.abs(gaussians.means) < 1e3).all(axis=1)


def _surface_at(
    means: np.ndarray, depth: np.ndarray, camera: PinholeCamera, camera_to_world: Pose
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of points (N, 3) in the world: their z in the camera, the depth in their pixels, metres, 0 where none is known or
    outside the image, and whether they are in the image.
    """
    pixels, z = camera.project(camera_to_world.inverse().apply(means))
    rows, columns, inside = camera.pixel_index(pixels)
    return z, np.where(inside, depth[rows, columns], np.float32(0)), inside


def merge_per_voxel(gaussians: Gaussians, resolution: float) -> tuple[Gaussians, np.ndarray]:
    """One Gaussian per voxel: averages weighted by opacity, orientation and scales of the most opaque member, and the
    opacity of all, 1 - prod(1 - a), so that it covers its voxel as they did.

    Returns the merged Gaussians and their (M, 3) int32 voxels.
    """
    if not len(gaussians):
        return gaussians, np.zeros((0, 3), np.int32)
    voxels = voxels_of(gaussians.means, resolution)
    unique, member = unique_rows(voxels)
    # Member by member, and of each voxel by opacity; a stable sort, so that ties are settled by position.
    order = np.lexsort((gaussians.opacities, member))
    first = np.flatnonzero(np.diff(member[order], prepend=-1))
    best = order[np.append(first[1:], len(order)) - 1]
    weights = gaussians.opacities[order].astype(np.float64) + 1e-9
    weights /= np.add.reduceat(weights, first)[member[order]]

    def average(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(weights[:, None] * values[order], first, axis=0)

    means = average(gaussians.means)
    # Averaging in floating point must not move a Gaussian out of its voxel, or its association would be lost.
    low = unique * resolution
    means = np.clip(means, low + 1e-4 * resolution, low + (1 - 1e-4) * resolution)
    clear = np.log1p(-np.minimum(gaussians.opacities[order].astype(np.float64), 0.9999))
    transparent = np.add.reduceat(clear, first)
    merged = Gaussians(
        means,
        gaussians.scales[best],
        gaussians.rotations[best],
        -np.expm1(transparent),
        average(gaussians.logits),
        average(gaussians.features),
    )
    return merged, unique.astype(np.int32)


def blend(old: Gaussians, new: Gaussians, ratio: np.ndarray) -> Gaussians:
    """old + ratio (new - old); rotations along the shorter way, normalised."""

    def mix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        weight = ratio.reshape(-1, *[1] * (a.ndim - 1))
        return a + weight * (b - a)

    aligned = np.where((old.rotations * new.rotations).sum(axis=1, keepdims=True) < 0, -new.rotations, new.rotations)
    rotations = mix(old.rotations, aligned)
    rotations /= np.maximum(np.linalg.norm(rotations, axis=1, keepdims=True), 1e-9)
    return Gaussians(
        mix(old.means, new.means),
        mix(old.scales, new.scales),
        rotations,
        mix(old.opacities, new.opacities),
        mix(old.logits, new.logits),
        mix(old.features, new.features),
    )
