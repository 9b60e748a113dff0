"""Networks of published families, with the names of their public weights."""
