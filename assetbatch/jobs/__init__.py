"""What the commands do: `update` is the one road that every asset travels, the jobs choose who travels it."""
