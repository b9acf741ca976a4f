"""What a message means: decode it, compute its row."""
