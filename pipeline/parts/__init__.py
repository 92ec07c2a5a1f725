"""What several stages do."""
