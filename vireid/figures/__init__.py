"""Figures: pictures for papers and for the eye. Tables and rows in, image files out; needs no more than Pillow."""
