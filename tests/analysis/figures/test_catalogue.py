"""Every figure of each made-up experiment: complete, legible, the same bytes twice, and no warning (an error)."""

METRIC_FIGURES = ["accuracy", "loss", "fpr", "fnr", "auc", "macro_f1"]
