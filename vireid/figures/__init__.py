"""Figures: pictures for papers and for the eye, one file per figure.

Ranked lists and the transfer matrix are drawn with Pillow; every other figure is a function that returns a
matplotlib Figure and needs the extra `figures`, which is imported when the first one is drawn.
"""
