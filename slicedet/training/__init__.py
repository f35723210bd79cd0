"""Training: losses, data, schedule and the trainer."""
