"""What the stored results say: tables, figures and status, from the store alone."""
