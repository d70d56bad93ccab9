"""Joins messages of several streams by their stamps. Without ROS."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class _Stream:
    """The items of one stream that may still be needed, at increasing stamps in nanoseconds."""

    stamps_ns: list[int] = field(default_factory=list)
    items: list[object] = field(default_factory=list)
    newest_ns: int | None = None  # the last stamp that came, whether its item is still here or not
    follows: bool = False  # of a latched stream: its items carry the stamps of the primary stream

    def drop_first(self, count: int) -> None:
        del self.stamps_ns[:count], self.items[:count]


@dataclass
class _Waiting:
    """An item of the primary stream and the partners found so far."""

    stamp_ns: int
    arrived_s: float
    parts: dict[str, object]


class StampJoiner:
    """Finds for each item of the primary stream its partners in the other streams.

    required: names of the streams, the primary one first; latched: those of the others which may come only once;
    tolerance_s: how far apart partners may be stamped; max_length: items kept per stream.

    A partner is the item with the same stamp, else the nearest one within the tolerance (the earlier of two at the
    same distance). That is known once a later item of the partner's stream has come, so joining does not depend on
    how the streams interleave; a tolerance above 0 costs that wait where stamps differ. A partner may serve several
    items of the primary stream.

    A latched stream gives the item in force: the last one stamped at or before the primary item, else the first one
    after it. Once its stamps have been seen to match exactly, its item with the same stamp is waited for; when that
    does not come, the item in force serves and the stream counts as latched again.

    Every item of the primary stream ends in one set or in `take_dropped`. A stamp that goes back (a recording that
    starts again) starts its stream anew.
    """

    def __init__(
        self, required: Sequence[str], *, latched: Sequence[str] = (), tolerance_s: float = 0.0, max_length: int = 30
    ) -> None:
        if not required or len(set(required)) != len(required) or not set(latched) <= set(required[1:]):
            raise ValueError(
                f"streams {list(required)} with {list(latched)} latched cannot be joined: "
                "name each stream once, the primary one first, and latch only others of them"
            )
        if not tolerance_s >= 0 or max_length < 1:
            raise ValueError(f"a tolerance of {tolerance_s} s and a length of {max_length} must be >= 0 and >= 1")
        self._primary, self._partners = required[0], tuple(required[1:])
        self._latched = frozenset(latched)
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._max_length = max_length
        self._streams = {name: _Stream() for name in self._partners}
        self._waiting: list[_Waiting] = []
        self._newest_ns: int | None = None  # of the primary stream
        self._dropped: list[tuple[str, str]] = []

    def add(self, stream: str, stamp_ns: int, item: object, now_s: float) -> list[dict[str, object]]:
        """Add one item; returns the sets {stream: item} it completes, in the order of their stamps.

        now_s: steady time, only ever compared in `expire`.
        """
        if stream == self._primary:
            self._add_primary(stamp_ns, item, now_s)
        elif stream in self._streams:
            self._add_partner(stream, stamp_ns, item)
        else:
            raise ValueError(f"there is no stream '{stream}': the joiner has {[self._primary, *self._partners]}")
        joined = self._join()
        if len(self._waiting) > self._max_length:
            self._give_up(self._waiting[0])
            joined += self._join()
        return joined

    def expire(self, now_s: float, max_wait_s: float) -> list[dict[str, object]]:
        """Give up items of the primary stream that wait for `max_wait_s`; returns the sets this completes."""
        for waiting in list(self._waiting):
            if now_s - waiting.arrived_s >= max_wait_s:
                self._give_up(waiting)
        return self._join()

    def close(self, reason: str, sentence: str) -> None:
        """Give up whatever waits, for that reason."""
        for _ in self._waiting:
            self._drop(reason, sentence)
        self._waiting.clear()

    def take_dropped(self) -> list[tuple[str, str]]:
        """(reason, sentence) of each primary item lost since the last call.

        Reasons: no_<stream> of the first missing partner, same_stamp, stamp_went_back, or that of `close`.
        """
        dropped, self._dropped = self._dropped, []
        return dropped

    def _add_primary(self, stamp_ns: int, item: object, now_s: float) -> None:
        if stamp_ns == self._newest_ns:
            self._drop(
                "same_stamp",
                f"two items of {self._primary} have the stamp {_seconds(stamp_ns)}: look for two publishers, or a "
                "driver that does not stamp",
            )
            return
        if self._newest_ns is not None and stamp_ns < self._newest_ns:
            for waiting in self._waiting:
                self._drop(
                    "stamp_went_back",
                    f"{self._primary} at {_seconds(waiting.stamp_ns)} was still waiting when the stamps went back to "
                    f"{_seconds(stamp_ns)}: look for two publishers, if no recording was started again",
                )
            self._waiting.clear()
            for name in self._partners:  # of before: nothing of it says that a partner of now is lost
                stream = self._streams[name]
                if name not in self._latched and stream.newest_ns is not None and stream.newest_ns > stamp_ns:
                    stream.drop_first(len(stream.items))
                    stream.newest_ns = None
        self._newest_ns = stamp_ns
        self._waiting.append(_Waiting(stamp_ns, now_s, {self._primary: item}))

    def _add_partner(self, name: str, stamp_ns: int, item: object) -> None:
        stream = self._streams[name]
        if stream.newest_ns is not None and stamp_ns < stream.newest_ns:
            stream.drop_first(len(stream.items))
        elif stream.stamps_ns and stamp_ns == stream.stamps_ns[-1]:
            del stream.stamps_ns[-1], stream.items[-1]  # the new item replaces it
        stream.newest_ns = stamp_ns
        stream.stamps_ns.append(stamp_ns)
        stream.items.append(item)

    def _join(self) -> list[dict[str, object]]:
        """Find partners, take the complete sets from the front, forget what no later item can need."""
        self._join_partners()
        joined = []
        while self._waiting and len(self._waiting[0].parts) == 1 + len(self._partners):
            joined.append(self._waiting.pop(0).parts)
        if self._newest_ns is not None:
            needed_ns = (self._waiting[0].stamp_ns if self._waiting else self._newest_ns) - self._tolerance_ns
            for name, stream in self._streams.items():
                if name in self._latched:
                    stream.drop_first(max(bisect.bisect_right(stream.stamps_ns, needed_ns) - 1, 0))
                else:
                    stream.drop_first(bisect.bisect_left(stream.stamps_ns, needed_ns))
        for stream in self._streams.values():
            stream.drop_first(max(len(stream.items) - self._max_length, 0))
        return joined

    def _join_partners(self) -> None:
        """Give each waiting item the partners that are certain; drop it when one certainly cannot come."""
        for waiting in list(self._waiting):
            for name in self._partners:
                if name in waiting.parts:
                    continue
                stream = self._streams[name]
                if name in self._latched:
                    index = _in_force(stream, waiting.stamp_ns)
                else:
                    index = self._nearest(stream, waiting.stamp_ns)
                if index is not None:
                    waiting.parts[name] = stream.items[index]
                elif name not in self._latched and (stream.newest_ns or 0) > waiting.stamp_ns:
                    self._lose(waiting, name)
                    break

    def _nearest(self, stream: _Stream, stamp_ns: int) -> int | None:
        """The index of the partner at or nearest to a stamp; None where there is none or it is not certain yet."""
        stamps = stream.stamps_ns
        after = bisect.bisect_left(stamps, stamp_ns)
        if after == len(stamps):
            return None
        before = max(after - 1, 0)
        nearest = before if stamp_ns - stamps[before] <= stamps[after] - stamp_ns else after
        return nearest if abs(stamps[nearest] - stamp_ns) <= self._tolerance_ns else None

    def _give_up(self, waiting: _Waiting) -> None:
        """Wait no longer: latched streams give what they have; without another partner the item is lost."""
        for name in self._partners:
            if name not in waiting.parts:
                if name not in self._latched or not self._streams[name].items:
                    self._lose(waiting, name)
                    return
                self._streams[name].follows = False

    def _lose(self, waiting: _Waiting, name: str) -> None:
        self._waiting.remove(waiting)
        stream = self._streams[name]
        if stream.newest_ns is None:
            cause = f"no {name} has come: check that its topic is published, with the right name and QoS"
        else:
            cause = (
                f"none is stamped within {self._tolerance_ns / 1e9:g} s of it, the newest is of "
                f"{_seconds(stream.newest_ns)}: check that both are stamped by one clock and none is lost, "
                "or raise the tolerance"
            )
        self._drop(f"no_{name}", f"{self._primary} at {_seconds(waiting.stamp_ns)} has no {name}, {cause}")

    def _drop(self, reason: str, sentence: str) -> None:
        self._dropped.append((reason, sentence))


def _in_force(stream: _Stream, stamp_ns: int) -> int | None:
    """The index of a latched stream's item for a stamp; None while it is waited for. Notes whether stamps match."""
    after = bisect.bisect_right(stream.stamps_ns, stamp_ns)
    if after and stream.stamps_ns[after - 1] == stamp_ns:
        stream.follows = True
    elif not stream.stamps_ns or (stream.follows and after == len(stream.stamps_ns)):
        return None
    return max(after - 1, 0)


def _seconds(stamp_ns: int) -> str:
    return f"{stamp_ns / 1e9:.3f} s"
