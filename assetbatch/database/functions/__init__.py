"""The functions of the schema as SQL, and the view that shows one of them, made anew with each migration."""
