"""Schema, the platform's tables, and backups."""
