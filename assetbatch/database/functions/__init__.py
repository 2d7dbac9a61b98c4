"""The functions of the schema as SQL, made anew with each migration."""
