"""Every figure of every made-up experiment: complete, legible, the same bytes twice, and no warning (all are errors)."""

import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import LONG, contrasts
from matplotlib import cbook
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from d3m_ray.analysis.choice import chosen_numbers
from d3m_ray.analysis.figures import all_figures, figure_files, svg, write_figure
from d3m_ray.analysis.figures.differences import differences_figure, of_worst_group
from d3m_ray.analysis.figures.style import house_style
from d3m_ray.analysis.results import Results

METRIC_FIGURES = ["accuracy", "loss", "fpr", "fnr", "auc", "macro_f1"]
