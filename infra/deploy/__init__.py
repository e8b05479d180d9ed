"""What it takes to run on machines of one's own."""
