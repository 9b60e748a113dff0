"""Layers: network parts that two or more methods use, one part per file."""
