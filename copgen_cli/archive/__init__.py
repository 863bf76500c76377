"""Major TOM as a source: from a region to the products of its cells on disk (`Product`).

A datum goes: `index` (the table of a whole source, kept on disk) -> `selection` (rows of a region, one per cell) ->
`download` (plan, products, manifest) -> `products` (thumbnails and bands out of Parquet files that stay where they
are). Below that, `parquet_ranges` finds single values, `http` and `remote` fetch ranges of files, `connections` and
`retry_policy` hold connections, tokens and waits. `grid` is the Major TOM grid, for everyone who has a cell's name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
