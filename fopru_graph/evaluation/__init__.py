"""Accuracy of pipelines: tasks and their records, scorers, the runner of one cell, its pictures, and tuning."""
