"""Processes that end with the one that started them, the signals that stop them, and arrays of Slurm."""
