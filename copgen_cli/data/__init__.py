"""Getting, cutting, encoding and packing: the way from an archive to a store."""
