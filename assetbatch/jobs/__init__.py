"""What the commands do: `run` has what every run has in common, `worker` makes the calls, from sources of work."""
