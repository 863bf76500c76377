"""Pictures from a model: where conditions come from, how samples are batched, and what is written of them."""
