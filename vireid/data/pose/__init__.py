"""Poses: keypoints, where they come from, and the heat maps that networks read."""
