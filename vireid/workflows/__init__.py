"""Workflows: what takes several rooms, as the functions behind the verbs of the command line."""
