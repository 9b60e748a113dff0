"""From a camera's video to crops of people: frames, boxes, tracks, segments."""
