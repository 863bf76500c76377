"""A packed store of many files: `packing` deals records to shards and has workers write them, `index` says what lies
where, `store` reads all of them as one.
"""
