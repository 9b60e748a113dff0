"""Losses that two or more methods use, or that one paper is known for: one loss per file, plain functions."""
