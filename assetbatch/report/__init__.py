"""What is told: `status` is one value, and its tables, its JSON and its exit code are three ways to show it."""
