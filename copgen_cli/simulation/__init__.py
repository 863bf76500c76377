"""The simulated Earth: co-registered cells of known truth, in the format of a Major TOM archive."""
