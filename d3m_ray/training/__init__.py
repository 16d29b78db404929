"""Texts to a fine-tuned classifier: model, batches, steps, and the recipes to train by."""
