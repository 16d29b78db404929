"""Every figure of every made-up experiment: complete, legible, the same bytes twice, and no warning (all are errors)."""

METRIC_FIGURES = ["accuracy", "loss", "fpr", "fnr", "auc", "macro_f1"]
