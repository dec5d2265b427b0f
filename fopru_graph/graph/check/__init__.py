"""Checking a pipeline before it runs: sub-graphs, bindings of inputs, validation."""
