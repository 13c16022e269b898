"""What providers send to our callback URLs."""
