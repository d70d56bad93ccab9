"""What can be asked of the map while a node runs, done by the thread that owns it."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable

from octomap_msgs.srv import BoundingBoxQuery
from rclpy.task import Future
from std_srvs.srv import Trigger

from sgrocc.memory import map_file
from sgrocc.memory.gaussian_memory import GaussianMemory
from sgrocc.memory.voxels import VoxelUpdate
from sgrocc_ros.lifecycle import ManagedNode


class MapServices:
    """`~/save_map` and `~/load_map` (the file of the parameter `map_file`), `~/reset`, `~/clear_box`, `~/publish_map`.

    What is asked for waits until the owner of the map calls `answer`, and is done in the order in which it was asked.
    send: gets what changes, and whether that is the whole map.
    """

    def __init__(self, node: ManagedNode, send: Callable[[VoxelUpdate, bool], None]) -> None:
        self.memory: GaussianMemory | None = None  #: None: there is no map
        self._node, self._send = node, send
        self._asked: deque[tuple[Callable[[], str], Future]] = deque()
        for name in ("save_map", "load_map", "reset", "publish_map"):
            node.create_service(Trigger, f"~/{name}", self._served(getattr(self, name)))
        node.create_service(BoundingBoxQuery, "~/clear_box", self._on_clear_box)

    def ask(self, action: Callable[[], str]) -> Future:
        """From any thread. The future result is (success, sentence): what the action returns, or what it raises."""
        done = Future()
        self._asked.append((action, done))
        if self.memory is None:
            self._refuse()
        return done

    def close(self) -> None:
        """There is no map any more, and nobody who answers."""
        self.memory = None
        self._refuse()

    def answer(self) -> None:
        """Do all that was asked for."""
        log = self._node.get_logger().error
        while self._asked:
            action, done = self._asked.popleft()
            try:
                done.set_result((True, action()))
            except (ValueError, OSError) as error:
                log(str(error))
                done.set_result((False, str(error)))
            except Exception as error:  # whoever asked must not wait for ever
                log(traceback.format_exc())
                done.set_result((False, f"{type(error).__name__}: {error}"))
            if self._node.executor is not None:  # which waits, and passes the answer on
                self._node.executor.wake()

    def _refuse(self) -> None:
        while self._asked:
            self._asked.popleft()[1].set_result((False, f"there is no map: configure {self._node.get_name()} first"))

    # -- by the owner of the map ----------------------------------------------------------------------------------

    def save_map(self) -> str:
        map_file.save(self.memory, self._path(), self._node.values["global_frame"])
        return f"{self._path()} holds the map: {len(self.memory)} Gaussians"

    def load_map(self) -> str:
        map_file.load(self.memory, self._path(), self._node.values["global_frame"])
        self.ask(self.publish_map)
        return f"{self._path()} was loaded: {len(self.memory)} Gaussians"

    def reset(self) -> str:
        self.memory.clear()
        self.publish_map()
        return "the map is empty"

    def publish_map(self) -> str:
        self._send(self.memory.snapshot(), True)
        return "the whole map follows" if self._node.is_active else "it follows when the node is active"

    def clear_box(self, low: tuple, high: tuple) -> str:
        self._send(update := self.memory.clear_box(low, high), False)
        return f"{len(update.indices)} voxels were forgotten"

    def _path(self) -> str:
        if not self._node.values["map_file"]:
            raise ValueError("there is no file for the map: set the parameter map_file")
        return self._node.values["map_file"]

    # -- by the executor ------------------------------------------------------------------------------------------

    def _served(self, action: Callable[[], str]) -> Callable:
        async def serve(_: object, response: Trigger.Response) -> Trigger.Response:
            response.success, response.message = await self.ask(action)
            return response

        return serve

    async def _on_clear_box(self, box: BoundingBoxQuery.Request, response: BoundingBoxQuery.Response):
        await self.ask(lambda: self.clear_box((box.min.x, box.min.y, box.min.z), (box.max.x, box.max.y, box.max.z)))
        return response
