"""The network and what is done with it: noise, sampling, weights on disk, training, the pipeline."""
