"""Measurements judged in their units: values of bands, classes, places, dates, and sets of spectra.

One rule for what is missing: where the truth is not known, nothing is judged; where what was generated is no number,
the score is nan. So is a score of nothing.
"""
