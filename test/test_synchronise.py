"""Joining streams by stamp: the sets, their independence of arrival order, and the reason of every loss."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgrocc_ros.synchronise import StampJoiner

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def at(tenths: float) -> int:
    return START + round(tenths * SECOND / 10)


def feed(joiner: StampJoiner, messages: list[tuple[str, int]]) -> list[tuple]:
    """Adds (stream, stamp) with the stamp as the item; returns the sets as tuples of stamps, streams in order."""
    joined = [parts for stream, stamp in messages for parts in joiner.add(stream, stamp, stamp, 0.0)]
    names = sorted(joined[0]) if joined else ()
    assert all(sorted(parts) == list(names) for parts in joined)
    return [tuple(parts[name] for name in ("image", "camera_info", "depth") if name in parts) for parts in joined]


def interleavings(draw, streams: dict[str, list[int]], max_skew: int) -> list[tuple[str, int]]:
    """A random interleaving of streams, each in order, none ahead of another by more than `max_skew` messages."""
    done = dict.fromkeys(streams, 0)
    merged = []
    while True:
        open_streams = [name for name in streams if done[name] < len(streams[name])]
        if not open_streams:
            return merged
        behind = min(done[name] for name in open_streams)
        name = draw(st.sampled_from([name for name in open_streams if done[name] - behind < max_skew]))
        merged.append((name, streams[name][done[name]]))
        done[name] += 1


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_any_interleaving_of_complete_streams_gives_the_same_sets(data):
    stamps = [at(i) for i in range(data.draw(st.integers(1, 25)))]
    partners = data.draw(st.sampled_from([("depth",), ("camera_info",), ("camera_info", "depth")]))
    names = ("image", *partners)
    latched = data.draw(st.sampled_from([(), ("camera_info",)])) if "camera_info" in names else ()
    joiner = StampJoiner(names, latched=latched, max_length=8)
    messages = interleavings(data.draw, {name: stamps for name in names}, max_skew=7)
    assert feed(joiner, messages) == [(stamp,) * len(names) for stamp in stamps]
    assert joiner.take_dropped() == []


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_holes_and_jitter_are_judged_alike_in_any_interleaving(data):
    images = [at(i) for i in range(20)]
    jitter = st.sampled_from([-0.3, -0.2, 0.0, 0.2, 0.3])  # tenths of a second; the tolerance is 0.25 tenths
    depths = [at(i + data.draw(jitter)) for i in range(20) if data.draw(st.booleans())] + [at(30)]
    expected, lost = [], 0
    for image in images:
        nearest = min(depths, key=lambda depth: abs(depth - image))
        if abs(nearest - image) <= at(0.25) - at(0):
            expected.append((image, nearest))
        else:
            lost += 1
    joiner = StampJoiner(("image", "depth"), tolerance_s=0.025, max_length=30)
    assert feed(joiner, interleavings(data.draw, {"image": images, "depth": depths}, max_skew=40)) == expected
    assert [reason for reason, _ in joiner.take_dropped()] == ["no_depth"] * lost


def test_sets_come_in_the_order_of_their_stamps_and_as_soon_as_they_are_certain():
    joiner = StampJoiner(("image", "depth"))
    assert feed(joiner, [("image", at(0)), ("image", at(1))]) == []
    assert feed(joiner, [("depth", at(0))]) == [(at(0), at(0))]
    assert feed(joiner, [("depth", at(1))]) == [(at(1), at(1))]
    assert feed(joiner, [("depth", at(2)), ("image", at(2))]) == [(at(2), at(2))]


def test_the_nearest_is_taken_once_no_nearer_one_can_come_and_the_earlier_of_two_equals():
    joiner = StampJoiner(("image", "depth"), tolerance_s=0.05)
    assert feed(joiner, [("image", at(10)), ("depth", at(9.8))]) == []  # a nearer one may follow
    assert feed(joiner, [("depth", at(10.1))]) == [(at(10), at(10.1))]
    assert feed(joiner, [("image", at(20)), ("depth", at(19.8)), ("depth", at(20.2))]) == [(at(20), at(19.8))]
    assert feed(joiner, [("image", at(30)), ("depth", at(29.4)), ("depth", at(30.6))]) == []
    [(reason, sentence)] = joiner.take_dropped()
    assert reason == "no_depth" and "0.05 s" in sentence and "raise the tolerance" in sentence


def test_the_item_that_fills_the_queue_does_not_push_out_a_partner_that_is_about_to_be_certain():
    joiner = StampJoiner(("image", "depth"), tolerance_s=0.05, max_length=1)
    assert feed(joiner, [("image", at(10)), ("depth", at(9.8)), ("depth", at(11))]) == [(at(10), at(9.8))]


def test_an_image_overtaken_by_its_partner_stream_is_lost_with_that_streams_name():
    joiner = StampJoiner(("image", "camera_info", "depth"))
    messages = [("image", at(0)), ("camera_info", at(0)), ("depth", at(1)), ("camera_info", at(1)), ("image", at(1))]
    assert feed(joiner, messages) == [(at(1),) * 3]
    [(reason, sentence)] = joiner.take_dropped()
    assert reason == "no_depth" and "1700000000.000 s" in sentence
    assert joiner.take_dropped() == []


def test_a_full_queue_loses_its_oldest_image_for_the_first_missing_stream():
    joiner = StampJoiner(("image", "camera_info", "depth"), max_length=3)
    for i in range(10):  # depth comes, and must not be blamed
        assert feed(joiner, [("image", at(i)), ("depth", at(i))]) == []
    lost = joiner.take_dropped()
    assert [reason for reason, _ in lost] == ["no_camera_info"] * 7
    assert "no camera_info has come" in lost[0][1]
    assert feed(joiner, [("camera_info", at(8))]) == [(at(8),) * 3]
    assert [reason for reason, _ in joiner.take_dropped()] == ["no_camera_info"]  # of image 7


def test_expire_gives_up_what_waited_too_long_and_nothing_else():
    joiner = StampJoiner(("image", "depth"))
    joiner.add("image", at(0), "a", now_s=100.0)
    joiner.add("image", at(1), "b", now_s=100.6)
    assert joiner.expire(100.9, 1.0) == [] and joiner.take_dropped() == []
    assert joiner.expire(101.0, 1.0) == []
    assert [reason for reason, _ in joiner.take_dropped()] == ["no_depth"]
    assert joiner.add("depth", at(1), "B", 101.1) == [{"image": "b", "depth": "B"}]


def test_a_partner_of_another_clock_is_named_with_its_stamp():
    joiner = StampJoiner(("image", "depth"))
    assert feed(joiner, [("image", at(0)), ("depth", 5 * SECOND), ("depth", 6 * SECOND)]) == []
    joiner.expire(10.0, 1.0)
    [(reason, sentence)] = joiner.take_dropped()
    assert reason == "no_depth" and "the newest is of 6.000 s" in sentence and "one clock" in sentence


LATCHED = {"required": ("image", "camera_info"), "latched": ("camera_info",)}


@pytest.mark.parametrize("info_stamp", [0, at(-50), at(3.5), at(1000)])
@pytest.mark.parametrize("position", [0, 1, 5])
def test_a_camera_info_that_comes_once_serves_every_image(info_stamp, position):
    images = [("image", at(i)) for i in range(10)]
    messages = [*images[:position], ("camera_info", info_stamp), *images[position:]]
    joiner = StampJoiner(**LATCHED)
    assert feed(joiner, messages) == [(at(i), info_stamp) for i in range(10)]
    assert joiner.take_dropped() == []


def test_a_single_camera_info_at_an_images_stamp_delays_but_loses_nothing():
    joiner = StampJoiner(**LATCHED)
    assert feed(joiner, [("camera_info", at(0)), ("image", at(0)), ("image", at(1))]) == [(at(0), at(0))]
    assert joiner.expire(0.5, 1.0) == []
    assert joiner.expire(1.0, 1.0) == [{"image": at(1), "camera_info": at(0)}]
    assert feed(joiner, [("image", at(2)), ("image", at(3))]) == [(at(2), at(0)), (at(3), at(0))]  # no second delay
    assert joiner.take_dropped() == []


def test_a_full_queue_falls_back_to_the_latched_item_as_well():
    joiner = StampJoiner(**LATCHED, max_length=3)
    messages = [("camera_info", at(0)), *(("image", at(i)) for i in range(8))]
    assert feed(joiner, messages) == [(at(i), at(0)) for i in range(8)]


def test_a_new_calibration_holds_from_its_stamp_on():
    joiner = StampJoiner(**LATCHED)
    messages = [("camera_info", at(0.5)), ("image", at(1)), ("camera_info", at(1.5))]
    messages += [("image", at(2)), ("image", at(3))]
    assert feed(joiner, messages) == [(at(1), at(0.5)), (at(2), at(1.5)), (at(3), at(1.5))]


def test_a_lost_camera_info_is_replaced_by_the_one_in_force():
    joiner = StampJoiner(**LATCHED)
    messages = [(name, at(i)) for i in range(6) for name in ("image", "camera_info") if (name, i) != ("camera_info", 3)]
    assert feed(joiner, messages) == [(at(i), at(2 if i == 3 else i)) for i in range(6)]


def test_a_latched_stream_that_never_came_loses_the_image():
    joiner = StampJoiner(**LATCHED)
    joiner.add("image", at(0), "a", 0.0)
    assert joiner.expire(2.0, 1.0) == []
    assert [reason for reason, _ in joiner.take_dropped()] == ["no_camera_info"]


def test_a_recording_that_starts_again_is_joined_again_and_every_image_is_accounted_for():
    joiner = StampJoiner(("image", "depth"))
    once = [(name, at(i)) for i in range(5) for name in ("image", "depth")]
    assert len(feed(joiner, [*once, ("image", at(5))])) == 5
    again = feed(joiner, once)
    lost = [reason for reason, _ in joiner.take_dropped()]
    assert lost[0] == "stamp_went_back"  # the image at 5 was still waiting
    assert again[-1] == (at(4), at(4)) and len(again) + len(lost) == 6 and len(again) >= 4


def test_two_images_at_one_stamp_give_one_set_and_one_reason():
    joiner = StampJoiner(("image", "depth"))
    assert feed(joiner, [("image", 0), ("image", 0), ("depth", 0)]) == [(0, 0)]
    assert [reason for reason, _ in joiner.take_dropped()] == ["same_stamp"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["image", "camera_info", "depth"]), st.integers(1, 12)), max_size=120))
def test_no_sequence_breaks_it_and_every_image_ends_once(messages):
    joiner = StampJoiner(("image", "camera_info", "depth"), latched=("camera_info",), tolerance_s=1e-9, max_length=4)
    joined, lost = 0, 0
    for stream, stamp in messages:
        for parts in joiner.add(stream, stamp, (stream, stamp), 0.0):
            assert [parts[name][0] for name in ("image", "camera_info", "depth")] == ["image", "camera_info", "depth"]
            assert abs(parts["image"][1] - parts["depth"][1]) <= 1
            joined += 1
    joined += len(joiner.expire(1.0, 0.5))
    lost = len(joiner.take_dropped())
    assert joined + lost == sum(stream == "image" for stream, _ in messages)
    assert all(len(stream.items) <= 4 for stream in joiner._streams.values())


def test_a_single_stream_needs_no_partner():
    assert StampJoiner(("image",)).add("image", at(0), "a", 0.0) == [{"image": "a"}]


@pytest.mark.parametrize(
    "arguments",
    [
        {"required": ()},
        {"required": ("image", "image")},
        {"required": ("image",), "latched": ("image",)},
        {"required": ("image",), "latched": ("depth",)},
        {"required": ("image",), "tolerance_s": -1.0},
        {"required": ("image",), "tolerance_s": float("nan")},
        {"required": ("image",), "max_length": 0},
    ],
)
def test_a_joiner_that_cannot_work_is_refused(arguments):
    with pytest.raises(ValueError, match="cannot be joined|must be"):
        StampJoiner(**arguments)


def test_an_unknown_stream_is_refused_by_name():
    with pytest.raises(ValueError, match=r"no stream 'detph'.*'depth'"):
        StampJoiner(("image", "depth")).add("detph", 1, "x", 0.0)


def test_what_waits_at_the_end_is_told():
    joiner = StampJoiner(("image", "depth"), tolerance_s=0.05)
    joiner.add("image", 10, "a", 0.0)
    joiner.add("image", 20, "b", 0.0)
    joiner.close("stopped", "the node was stopped")
    assert joiner.take_dropped() == 2 * [("stopped", "the node was stopped")]
    assert joiner.add("depth", 10, "A", 0.0) == [] and joiner.take_dropped() == []
