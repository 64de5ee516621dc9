"""assay: does this model really run on this backend, and how well?"""

__version__ = "0.1.0"
