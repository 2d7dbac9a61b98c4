"""The only room that knows SQL: a module a concern, every statement whole, beside the function that runs it."""
