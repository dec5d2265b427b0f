"""Accuracy of pipelines: tasks and their data, scorers, the runner of one cell, statistics, sweeps and tuning."""
