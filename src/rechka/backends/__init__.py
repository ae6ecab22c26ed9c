"""What computes a graph: named arrays in, named arrays out, whatever is behind."""
