"""What a job was made of and what it opened."""
