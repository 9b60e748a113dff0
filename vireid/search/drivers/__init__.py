"""Drivers of the gallery protocol (search/gallery.py), one file each."""
