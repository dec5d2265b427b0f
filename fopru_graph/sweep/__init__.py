"""Sweeps: every combination of pipelines, tasks and settings, each cell in a process of its own."""
