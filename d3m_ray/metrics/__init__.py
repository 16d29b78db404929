"""What is measured: accuracies by group, and how well scores predict retraining."""
