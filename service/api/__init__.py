"""The HTTP edge: thin routes over use cases."""
