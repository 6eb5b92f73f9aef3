"""What a plan costs: steps, rates, hours."""
