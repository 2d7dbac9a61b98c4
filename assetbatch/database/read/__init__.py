"""What reports ask of the database, without changing anything."""
