"""What the nodes say and hear, as plain data: topics and services. The reference of the documentation is made of it."""

from __future__ import annotations

from dataclasses import dataclass

from sgrocc_ros.parameters import EVERY, EXPERT, MEMORY, PUBLISHER

CAMERA_QOS = "best effort, volatile, keep last 5"
MAP_QOS = "reliable, transient local, keep last 1"
INTERNAL_QOS = "reliable, volatile, keep last 50"
STATUS_QOS = "reliable, volatile, keep last 10"
TF_QOS = "as in tf2"


@dataclass(frozen=True)
class Topic:
    """One topic of one node. name: relative to the namespace, but for those that begin with a slash; type: of its
    messages; direction: in or out, as the node sees it."""

    name: str
    type: str
    node: str
    direction: str
    qos: str
    meaning: str


@dataclass(frozen=True)
class Service:
    """One service of one node. name: below the node's own name."""

    name: str
    type: str
    node: str
    meaning: str


TOPICS: tuple[Topic, ...] = (
    Topic(
        "image",
        "sensor_msgs/Image",
        EXPERT,
        "in",
        CAMERA_QOS,
        "colour; with `image_transport: compressed` it is `image/compressed`",
    ),
    Topic(
        "image/compressed",
        "sensor_msgs/CompressedImage",
        EXPERT,
        "in",
        CAMERA_QOS,
        "only with `image_transport: compressed`: JPEG or PNG",
    ),
    Topic(
        "camera_info",
        "sensor_msgs/CameraInfo",
        EXPERT,
        "in",
        CAMERA_QOS,
        "calibration of `image`; may come once or with each image",
    ),
    Topic(
        "depth",
        "sensor_msgs/Image",
        EXPERT,
        "in",
        CAMERA_QOS,
        "along z, registered to `image`, any size: 16UC1 or mono16 in millimetres, 32FC1 in metres; not subscribed "
        "with `depth_source: network`, unless `scale_source: sparse_depth`",
    ),
    Topic(
        "depth/compressedDepth",
        "sensor_msgs/CompressedImage",
        EXPERT,
        "in",
        CAMERA_QOS,
        "only with `depth_transport: compressedDepth`",
    ),
    Topic(
        "mask",
        "sensor_msgs/Image",
        EXPERT,
        "in",
        CAMERA_QOS,
        "only with `use_mask`: mono8, registered to `image`; what is not zero stays out of the map",
    ),
    Topic(
        "gaussians",
        "sensor_msgs/PointCloud2",
        EXPERT,
        "out",
        INTERNAL_QOS,
        "the frame's Gaussians, in the camera frame",
    ),
    Topic(
        "gaussians/depth",
        "sensor_msgs/Image",
        EXPERT,
        "out",
        INTERNAL_QOS,
        "32FC1, metres: the depth that they were made from; depth_image_proc makes a cloud of it",
    ),
    Topic(
        "gaussians/camera_info",
        "sensor_msgs/CameraInfo",
        EXPERT,
        "out",
        INTERNAL_QOS,
        "intrinsics of that depth",
    ),
    Topic(
        "debug/gates",
        "sensor_msgs/Image",
        EXPERT,
        "out",
        INTERNAL_QOS,
        "32FC1: mean gate weight of the lifter on the lattice of anchors",
    ),
    Topic(
        "debug/processing_ms",
        "std_msgs/Float64",
        EXPERT,
        "out",
        INTERNAL_QOS,
        "time from a frame's messages to its Gaussians",
    ),
    Topic(
        "metric_scale",
        "std_msgs/Float64",
        EXPERT,
        "out",
        STATUS_QOS,
        "factor that the network's own depth is multiplied by; only with a `scale_source`",
    ),
    Topic(
        "metric_scale_sigma",
        "std_msgs/Float64",
        EXPERT,
        "out",
        STATUS_QOS,
        "its relative standard deviation",
    ),
    Topic(
        "/tf",
        "tf2_msgs/TFMessage",
        MEMORY,
        "in",
        TF_QOS,
        "`global_frame` to the camera's frame, at the stamp of the image",
    ),
    Topic("/tf_static", "tf2_msgs/TFMessage", MEMORY, "in", TF_QOS, "the mounting of the camera"),
    Topic(
        "gaussians",
        "sensor_msgs/PointCloud2",
        MEMORY,
        "in",
        INTERNAL_QOS,
        "three processes: with its depth and camera_info, of the same stamp",
    ),
    Topic(
        "gaussians/memory",
        "sensor_msgs/PointCloud2",
        MEMORY,
        "out",
        MAP_QOS,
        "the remembered Gaussians for RViz: x y z rgb opacity label scale; at most `gaussian_cloud_rate_hz`",
    ),
    Topic(
        "debug/confidence",
        "sensor_msgs/PointCloud2",
        MEMORY,
        "out",
        INTERNAL_QOS,
        "the Gaussians that the frame saw again: x y z geometric semantic hybrid (equations 6 to 8)",
    ),
    Topic(
        "voxel_updates",
        "sensor_msgs/PointCloud2",
        MEMORY,
        "out",
        INTERNAL_QOS,
        "three processes: the voxels that a frame changed",
    ),
    Topic("voxel_updates", "sensor_msgs/PointCloud2", PUBLISHER, "in", INTERNAL_QOS, "three processes"),
    Topic(
        "voxel_updates",
        "sensor_msgs/PointCloud2",
        PUBLISHER,
        "out",
        INTERNAL_QOS,
        "one process: the voxels that a frame changed, with the fields of `occupancy/points`; label 0 is free, 255 "
        "unknown again; a cloud with the field `whole` replaces what came before",
    ),
    Topic(
        "occupancy/points",
        "sensor_msgs/PointCloud2",
        PUBLISHER,
        "out",
        MAP_QOS,
        "centres of the occupied voxels: x y z rgb, label, probability",
    ),
    Topic(
        "occupancy/grid",
        "nav_msgs/OccupancyGrid",
        PUBLISHER,
        "out",
        MAP_QOS,
        "the height band from above: 100 occupied, 0 free, -1 unknown",
    ),
    Topic(
        "occupancy/cost",
        "nav_msgs/OccupancyGrid",
        PUBLISHER,
        "out",
        MAP_QOS,
        "the same with the cost of the class, 0 to 100, by the `cost.*` parameters",
    ),
    Topic(
        "occupancy/distance",
        "sensor_msgs/PointCloud2",
        PUBLISHER,
        "out",
        MAP_QOS,
        "centres of the grid's cells: x y z distance, metres to the nearest occupied cell of the band",
    ),
    Topic(
        "occupancy/octomap_binary",
        "octomap_msgs/Octomap",
        PUBLISHER,
        "out",
        MAP_QOS,
        "OcTree: free and occupied; at most `octomap_rate_hz`",
    ),
    Topic(
        "occupancy/octomap_full",
        "octomap_msgs/Octomap",
        PUBLISHER,
        "out",
        MAP_QOS,
        "ColorOcTree: probabilities, and the colours of the classes",
    ),
    Topic(
        "occupancy/markers",
        "visualization_msgs/MarkerArray",
        PUBLISHER,
        "out",
        MAP_QOS,
        "cubes; above `max_markers` they are thinned evenly",
    ),
    Topic(
        "debug/latency_ms",
        "std_msgs/Float64",
        PUBLISHER,
        "out",
        STATUS_QOS,
        "from the image's stamp to the map that holds it",
    ),
    Topic("spatial_expert/dropped", "std_msgs/UInt64", EXPERT, "out", STATUS_QOS, "three processes: as the memory's"),
    Topic(
        "gaussian_memory/dropped",
        "std_msgs/UInt64",
        MEMORY,
        "out",
        STATUS_QOS,
        "frames dropped since the start, for whatever reason; once a second",
    ),
    Topic(
        "/diagnostics",
        "diagnostic_msgs/DiagnosticArray",
        EVERY,
        "out",
        STATUS_QOS,
        "counts of frames, reasons for drops, times of the stages; once a second",
    ),
)

SERVICES: tuple[Service, ...] = (
    Service("pause", "std_srvs/Trigger", EXPERT, "frames are not looked at until `resume`; the map stays"),
    Service("resume", "std_srvs/Trigger", EXPERT, "frames are looked at again"),
    Service(
        "save_map",
        "std_srvs/Trigger",
        MEMORY,
        "the map, with all that is needed to go on, to the file of `map_file`; written whole or not at all",
    ),
    Service(
        "load_map",
        "std_srvs/Trigger",
        MEMORY,
        "the map of that file instead of the present one; a damaged file, or one of other settings, is refused and the "
        "map stays",
    ),
    Service("reset", "std_srvs/Trigger", MEMORY, "the map begins anew"),
    Service(
        "clear_box",
        "octomap_msgs/BoundingBoxQuery",
        MEMORY,
        "what lies in the box, in `global_frame`, is forgotten and becomes unknown",
    ),
    Service("publish_map", "std_srvs/Trigger", MEMORY, "the whole map follows on `voxel_updates`"),
    Service("save_ply", "std_srvs/Trigger", PUBLISHER, "the occupied voxels to the PLY file of `ply_file`"),
    Service("octomap_binary", "octomap_msgs/GetOctomap", PUBLISHER, "what octomap_saver asks for: free and occupied"),
    Service("octomap_full", "octomap_msgs/GetOctomap", PUBLISHER, "the same with probabilities and colours"),
    Service("statistics", "std_srvs/Trigger", EVERY, "counts and times as JSON in the message"),
)
