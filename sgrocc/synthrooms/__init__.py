"""SynthRooms: labelled, posed, exactly voxelised indoor scenes, generated from a seed. Never torch or ROS."""
