"""What a user types: sweeps, and the commands that read a store."""
