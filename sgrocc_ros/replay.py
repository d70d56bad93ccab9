"""Plays a recording: every message as it was recorded, at its time, with /clock in the recording's time.

Images between processes need more shared memory than Fast DDS gives by default: point FASTDDS_DEFAULT_PROFILES_FILE
at config/fastdds_localhost.xml, here and where the nodes run.
"""

from __future__ import annotations

import argparse
import importlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock

from sgrocc.files import write_json
from sgrocc_ros.bag import BagReader, Topic, header_stamp_ns

CLOCK_PERIOD_S = 0.025
_SETTLE_S = 0.2
_REPORT_EVERY_S = 5.0


class SubscriberMissing(ValueError):
    """Nobody listens to a topic that somebody should listen to."""


@dataclass
class Replayed:
    """What was published: topic -> [(header stamp or else log time, steady clock at publishing)], nanoseconds."""

    published: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    worst_lateness_s: float = 0.0
    stopped: bool = False


def replay(
    bag: str | Path,
    node: Node,
    *,
    rate: float = 1.0,
    loops: int = 1,
    wait_for_subscribers: Iterable[str] = (),
    wait_limit_s: float = 60.0,
    tail_s: float = 1.0,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Replayed:
    """Publish a bag's messages through `node`, which need not be spun; returns when all have been sent.

    rate: speed against the recording's; loops: how many times over, with the recording's clock begun again;
    wait_for_subscribers: topics that must be listened to before it starts, for at most wait_limit_s; tail_s: how long
    /clock goes on, and publishers live, after the last message; stop: set it to end early; say: takes the lines of
    progress. Raises BagError, SubscriberMissing or ValueError, in a sentence.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"a bag cannot be played at {rate:g} times its speed: give a rate above zero")
    if loops < 1:
        raise ValueError(f"a bag cannot be played {loops} times: give one or more")
    if not (math.isfinite(tail_s) and tail_s >= 0):
        raise ValueError(f"/clock cannot go on for {tail_s:g} s: give a tail of zero or more")
    stop = stop or threading.Event()
    reader = BagReader(bag)
    wanted = tuple(wait_for_subscribers)
    reader.raw_messages(wanted)  # refuses topics that the bag lacks
    publishers = _make_publishers(reader, node, say)
    clock = node.create_publisher(Clock, "/clock", 10)
    result = Replayed({topic: [] for topic in publishers})
    try:
        _wait_for_subscribers({topic: publishers[topic] for topic in wanted if topic in publishers}, wait_limit_s, stop)
        for lap in range(loops):
            _play(reader, publishers, clock, rate, tail_s if lap == loops - 1 else 0.0, stop, say, result)
            if result.stopped:
                break
    finally:
        for publisher in (*publishers.values(), clock):
            node.destroy_publisher(publisher)
    return result


def _make_publishers(reader: BagReader, node: Node, say: Callable[[str], None]) -> dict[str, Publisher]:
    publishers = {}
    for name, topic in sorted(reader.topics.items()):
        if name == "/clock":
            continue  # the recording's clock would contradict ours
        try:
            package, _, kind = topic.msgtype.split("/")
            message_class = getattr(importlib.import_module(f"{package}.msg"), kind)
        except (ImportError, AttributeError, ValueError):
            say(f"{name} is left out: install {topic.msgtype} to play it")
            continue
        publishers[name] = node.create_publisher(message_class, name, _qos(name, topic))
    return publishers


def _qos(name: str, topic: Topic) -> QoSProfile:
    """Reliable, which best-effort subscribers accept as well; latched where it was, or must be for tf2."""
    if topic.latched or name == "/tf_static":
        return QoSProfile(
            depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def _wait_for_subscribers(publishers: dict[str, Publisher], limit_s: float, stop: threading.Event) -> None:
    deadline = time.monotonic() + limit_s
    while missing := [topic for topic, publisher in publishers.items() if not publisher.get_subscription_count()]:
        if stop.is_set():
            return
        if time.monotonic() > deadline:
            raise SubscriberMissing(
                f"nobody subscribed to {', '.join(missing)} within {limit_s:g} s: start the nodes first, "
                "with the same ROS_DOMAIN_ID"
            )
        stop.wait(0.02)
    # The subscriber may learn of the match a little later than we do, and loses best-effort messages until then.
    stop.wait(_SETTLE_S)


def _play(
    reader: BagReader,
    publishers: dict[str, Publisher],
    clock: Publisher,
    rate: float,
    tail_s: float,
    stop: threading.Event,
    say: Callable[[str], None],
    result: Replayed,
) -> None:
    messages = (
        (topic, log_ns, header_stamp_ns(reader.topics[topic].msgtype, raw), raw)
        for topic, log_ns, raw in reader.raw_messages(publishers)
    )
    message = next(messages, None)
    if message is None:
        raise ValueError(f"{reader.path} has no message that can be played: record it again")
    first_ns, start = message[1], time.monotonic()
    next_tick = start
    next_report = start + _REPORT_EVERY_S

    def publish_clock(now: float) -> None:
        seconds, nanoseconds = divmod(first_ns + int((now - start) * rate * 1e9), 1_000_000_000)
        message = Clock()
        message.clock.sec, message.clock.nanosec = seconds, nanoseconds
        clock.publish(message)

    def run_clock_until(due: float) -> float:
        nonlocal next_tick
        while not stop.is_set():
            now = time.monotonic()
            if now >= next_tick:
                publish_clock(now)
                next_tick = max(next_tick + CLOCK_PERIOD_S, now)
            if now >= due:
                return now
            stop.wait(min(due, next_tick) - now)
        return time.monotonic()

    while message is not None:
        topic, log_ns, stamp_ns, raw = message
        due = start + (log_ns - first_ns) / 1e9 / rate
        now = run_clock_until(due)
        if stop.is_set():
            break
        publish_clock(now)
        result.published[topic].append((log_ns if stamp_ns is None else stamp_ns, time.monotonic_ns()))
        publishers[topic].publish(raw)
        result.worst_lateness_s = max(result.worst_lateness_s, now - due)
        if now > next_report:
            next_report = now + _REPORT_EVERY_S
            say(f"at {(log_ns - first_ns) / 1e9:.1f} s, {sum(map(len, result.published.values()))} messages sent")
        message = next(messages, None)
    result.stopped = stop.is_set()
    run_clock_until(time.monotonic() + tail_s)
    for publisher in publishers.values():
        publisher.wait_for_all_acked(Duration(seconds=0.0 if result.stopped else 1.0))


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bag", required=True, help="folder of a rosbag2 recording")
    parser.add_argument("--rate", type=float, default=1.0, help="speed, 1 is the recording's own")
    parser.add_argument("--loops", type=int, default=1, help="how many times over")
    parser.add_argument(
        "--wait-for-subscribers", nargs="+", default=[], metavar="TOPIC", help="start when these are listened to"
    )
    parser.add_argument("--wait-limit-s", type=float, default=60.0, help="give up waiting after this (default 60)")
    parser.add_argument("--log", help="JSON file to write: when which stamp was published, on the steady clock")
    parser.add_argument("--tail-s", type=float, default=1.0, help="how long /clock goes on after the end (default 1)")
    options = parser.parse_args(remove_ros_args(sys.argv if args is None else ["replay", *args])[1:])

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("replay")
    try:
        result = replay(
            options.bag,
            node,
            rate=options.rate,
            loops=options.loops,
            wait_for_subscribers=options.wait_for_subscribers,
            wait_limit_s=options.wait_limit_s,
            tail_s=options.tail_s,
            stop=stop,
            say=lambda line: print(f"replay: {line}", flush=True),
        )
        if options.log:
            write_json(options.log, {"published": result.published})
    except (ValueError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    for topic, sent in result.published.items():
        print(f"replay: {len(sent):6d} {topic}")
    end = "stopped early" if result.stopped else "done"
    print(f"replay: {end}; at worst {1e3 * result.worst_lateness_s:.1f} ms late")
    return 128 + signal.SIGINT if result.stopped else 0


if __name__ == "__main__":
    sys.exit(main())
