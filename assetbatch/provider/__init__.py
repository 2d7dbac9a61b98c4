"""The vendor: one request in, one answer or one typed error out; the only room that knows its field names."""
