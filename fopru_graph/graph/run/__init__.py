"""Running a plan: executor, runner, schedule, and the record of a run."""
