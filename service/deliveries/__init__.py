"""Events on their way to destinations."""
