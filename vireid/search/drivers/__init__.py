"""Drivers of the gallery protocol (serve/gallery.py), one file each."""
