"""The way of a job: taken, submitted, tracked to its end."""
