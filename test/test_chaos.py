"""Broken messages, false transforms and clocks that go back: nothing crashes or is lost, no voxel is wrong."""

from sgrocc_ros import chaos


def test_three_laps_of_chaos_write_no_wrong_voxel_and_lose_nothing_uncounted():
    result = chaos.run(300, seed=7)
    assert result["wrong_voxels"] == 0 and result["uncounted"] == 0
    assert "internal_error" not in result["dropped"]
    assert result["fused"] > 60 and result["known_voxels"] > 5000
    assert len(result["faults"]) > 20 and len(result["dropped"]) > 5


def test_a_wrong_voxel_would_be_seen(monkeypatch):
    true_pose = chaos.true_pose

    def drifting(time_s):
        pose = true_pose(time_s)
        return chaos.Pose(pose.rotation, pose.translation - (0.5 if time_s > 5 else 0.0))

    monkeypatch.setattr(
        chaos,
        "_transform",
        lambda pose, stamp_ns, sent=chaos._transform: sent(drifting((stamp_ns - 1_000_000_000) / 1e9), stamp_ns),
    )
    assert chaos.run(90, seed=7)["wrong_voxels"] > 50
