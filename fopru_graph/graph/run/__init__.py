"""Running a plan: the executor, one run, its schedule and its record."""
