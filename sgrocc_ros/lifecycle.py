"""What the three nodes share: the states of a lifecycle node, its part of the table of parameters, its health."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from sgrocc_ros.health import FrameCounters, Health
from sgrocc_ros.parameters import TABLE, BadParameter, Parameter, Values, require_fitting, require_known

#: Cameras publish best effort or reliable; a best-effort subscription hears both.
SENSOR_QOS = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
#: Between our own nodes nothing may be lost.
INTERNAL_QOS = QoSProfile(depth=50, reliability=QoSReliabilityPolicy.RELIABLE)
#: REP-2003: maps are reliable and latched.
MAP_QOS = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)

#: Why a frame that came was never looked at: {reason: sentence}.
LOST = {
    "overtaken": "frames come faster than they can be fused",
    "stopped": "the node was stopped while frames waited",
}

_BY_NAME = {row.name: row for row in TABLE}


class LiveParameters:
    """A node's part of the table as rclpy parameters.

    What was given wrong does not end the node: `checked` refuses, so that configuring fails with the sentence, until
    it was set right; what only other nodes read is theirs to refuse. A change is judged as a whole before any of it is
    taken.
    """

    def __init__(self, node: LifecycleNode, kind: str, is_configured: Callable[[], bool]) -> None:
        self._kind, self._is_configured = kind, is_configured
        self._wrong: dict[str, str] = {}
        self.values: Values = {}
        #: Called with the names that changed while the node was configured.
        self.changed: Callable[[set[str]], None] = lambda names: None
        given = {name: override.value for name, override in node._parameter_overrides.items()}
        for name in given:
            try:
                require_known(name)
            except BadParameter as error:
                self._wrong[name] = str(error)
        for row in TABLE:
            try:
                self.values[row.name] = row.checked(given.get(row.name, row.default))
            except BadParameter as error:
                self.values[row.name] = row.default
                if kind in row.nodes:
                    self._wrong[row.name] = str(error)
            if kind in row.nodes:
                value = self.values[row.name]
                node.declare_parameter(row.name, value, _descriptor(row), ignore_override=True)
        node.add_on_set_parameters_callback(self._judge)
        node.add_post_set_parameters_callback(self._take)

    def checked(self) -> Values:
        """All values, where they are right and fit together. Raises BadParameter."""
        if self._wrong:
            raise BadParameter(next(iter(self._wrong.values())))
        require_fitting(self.values, self._kind)
        return self.values

    def _judge(self, changes: list) -> SetParametersResult:
        new = {change.name: change.value for change in changes if change.name in _BY_NAME}
        try:
            for name, value in new.items():
                _BY_NAME[name].checked(value)
                if self._is_configured() and not _BY_NAME[name].dynamic:
                    raise BadParameter(
                        f"{name} cannot change while the node is configured: set it after `cleanup`, or restart with it"
                    )
            if self._is_configured():
                require_fitting({**self.values, **new}, self._kind)
        except BadParameter as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _take(self, changes: list) -> None:
        new = {c.name: _BY_NAME[c.name].checked(c.value) for c in changes if c.name in _BY_NAME}
        if not new:
            return
        self.values = {**self.values, **new}
        for name in new:
            self._wrong.pop(name, None)
        if self._is_configured():
            self.changed(set(new))


class ManagedNode(LifecycleNode):
    """A lifecycle node of the table's `kind`.

    A subclass says what is done in `configured` (raises ValueError or OSError, which refuse the transition with their
    sentence), `activated`, `deactivated` and `cleaned_up` (which must bear being called in any state). What is heard
    through `hear` and called through `every` ends when the node is deactivated.

    counters: shared with the other nodes of a process. standalone: whether the node is a process of its own.
    """

    def __init__(self, kind: str, counters: FrameCounters | None, counts: bool, standalone: bool, **options) -> None:
        super().__init__(kind, **options)
        self._is_configured = self.is_active = False
        self._at_end: list[Callable[[], object]] = []
        self.outputs: dict[str, LifecyclePublisher] = {}  #: by topic, while configured; they send while active
        self._live = LiveParameters(self, kind, lambda: self._is_configured)
        self._live.changed = self.parameters_changed
        self.counters = counters or FrameCounters()
        self.problem = ""  #: why the last transition was refused
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.health = Health(self, self.counters if counts else None, self.details, with_times=counts or standalone)

    @property
    def values(self) -> Values:
        """The parameters as they are now; the same object until one of them changes."""
        return self._live.values

    @property
    def state(self) -> str:
        """unconfigured, inactive, active or finalized."""
        return self._state_machine.current_state[1]

    # -- what a subclass fills in --------------------------------------------------------------------------------

    def configured(self) -> None: ...

    def activated(self) -> None: ...

    def deactivated(self) -> None: ...

    def cleaned_up(self) -> None: ...

    def parameters_changed(self, names: set[str]) -> None:
        """Dynamic parameters were set while the node was configured."""

    def details(self) -> dict[str, object]:
        """What /diagnostics says besides."""
        return {}

    # -- for a subclass -------------------------------------------------------------------------------------------

    def hear(self, kind: type, topic: str, callback: Callable, qos: QoSProfile) -> str:
        """Subscribe while active, with the QoS that parameters may override; returns the topic with its remapping."""
        options = QoSOverridingOptions.with_default_policies()
        own = _copy_of(qos)
        subscription = self.create_subscription(kind, topic, callback, own, qos_overriding_options=options)
        self.when_deactivated(lambda: self.destroy_subscription(subscription))
        self.health.watchdog.qos[subscription.topic_name] = own
        return subscription.topic_name

    def offer(self, topic: str, kind: type, qos: QoSProfile) -> None:
        """Publish on a topic while active, through `outputs`; the QoS can be overridden by parameters."""
        options = QoSOverridingOptions.with_default_policies()
        own = _copy_of(qos)
        self.outputs[topic] = self.create_lifecycle_publisher(kind, topic, own, qos_overriding_options=options)

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        """Call while active, by the steady clock."""
        timer = self.create_timer(period_s, call, clock=self._steady)
        self.when_deactivated(lambda: self.destroy_timer(timer))

    def when_deactivated(self, call: Callable[[], object]) -> None:
        """Call once, when the node is deactivated, before `deactivated`."""
        self._at_end.append(call)

    def lost(self, reason: str) -> None:
        """Count a frame that a worker never saw; reason: overtaken or stopped."""
        self.counters.drop(reason, LOST[reason])

    def failed(self, trace: str, of_frame: bool = True) -> None:
        """Something failed inside the software, a frame or what is done besides, which must not end the map."""
        if of_frame:
            self.counters.drop("internal_error", "a frame failed inside the software: see the log and report it")
        self.get_logger().error(trace)

    # -- transitions ----------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tried(self._configure, self._clean_up) or super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tried(self._activate, self._deactivate) or super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tried(self._deactivate) or super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tried(self._clean_up) or super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._tried(self.release) or super().on_shutdown(state)

    def release(self) -> None:
        """End all work and free all there is, from any state."""
        self._deactivate()
        self._clean_up()

    def stop(self) -> None:
        """Shut down from any state; nothing is left running."""
        if self.context.ok() and self.state != "finalized":
            self.trigger_shutdown()
        else:
            self.release()

    def _configure(self) -> None:
        self._live.checked()
        self.configured()
        self._is_configured = True

    def _activate(self) -> None:
        self.activated()
        self.is_active = True

    def _deactivate(self) -> None:
        self.is_active = False
        calls, self._at_end = self._at_end, []
        for call in calls:
            call()
        self.health.watchdog.forget()
        self.deactivated()

    def _clean_up(self) -> None:
        self._is_configured = False
        self.cleaned_up()
        for output in self.outputs.values():
            self.destroy_lifecycle_publisher(output)
        self.outputs = {}

    def _tried(
        self, transition: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn | None:
        """None where it succeeded; else FAILURE, with the reason in the log and in /diagnostics."""
        try:
            transition()
            self.problem = ""
            return None
        except (ValueError, OSError) as error:
            self.problem = str(error)
            self.get_logger().error(self.problem)
        except Exception as error:  # rclpy would turn it into a silent ERROR
            self.problem = f"{type(error).__name__}: {error}"
            self.get_logger().error(traceback.format_exc())
        if undo is not None:
            undo()
        return TransitionCallbackReturn.FAILURE


def _copy_of(qos: QoSProfile) -> QoSProfile:
    """rclpy writes the overrides into the profile that it is given."""
    return QoSProfile(depth=qos.depth, reliability=qos.reliability, durability=qos.durability)


def _descriptor(row: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=row.doc)
    if not row.dynamic:
        descriptor.additional_constraints = "only while the node is not configured"
    if row.choices:
        descriptor.additional_constraints += f" one of {', '.join(row.choices)}"
    if type(row.default) is int:
        descriptor.integer_range = [IntegerRange(from_value=int(row.low), to_value=int(row.high), step=1)]
    elif row.low is not None:
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(row.low), to_value=float(row.high))]
    return descriptor
