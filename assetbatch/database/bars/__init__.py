"""Five-minute bars: whose are due, what is stored of a page, what is missing, and why."""
