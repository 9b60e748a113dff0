"""From pictures and videos to rows of a gallery."""
