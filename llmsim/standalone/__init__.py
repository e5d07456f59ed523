"""One thing played alone: a collective, a pipeline schedule, schedules side by side."""
