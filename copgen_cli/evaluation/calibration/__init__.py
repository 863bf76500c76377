"""Whether samples are as unsure as they should be: `reliability` computes the curves, `plots` draws them.

A curve says, for central intervals of the samples, how often the truth lies within one against how often it should.
"""
