"""The renderer of the synthetic visible-infrared pedestrians: numpy, scipy and pillow only."""
