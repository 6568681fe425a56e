"""Studies: grids of trained models that are measured under one protocol and end in a table and a figure."""
