"""Live cameras: streams that do not end, the people in them as rows of a gallery, and alarms of a watch-list."""
