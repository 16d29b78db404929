"""Raw corpora to Splits: the options of each corpus, and one way to load any of them."""
