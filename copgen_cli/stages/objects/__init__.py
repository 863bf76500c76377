"""The private folder, the claims and the journal of an output in an object store.

Each is the sibling of one for disks (`stages/private_folder.py`, `claims.py`, `manifest.py`) with the same methods, and
`outputs.py` chooses between the two. What differs, because a store has no rename, append or `flock`:

- Temporary files, and stores under construction, lie in a folder of this machine. A file is put in place by one upload.
- The lock is an object `.copgen/lock`.
- The journal is a series of whole objects, `.copgen/<stage>.<writer>-<number>.journal`, beside `<stage>.journal` with
  what the run was started with. Outcomes are written by the process that drives the run, `BATCH` at a time or every
  `SECONDS`: a kill loses at most these, whose files are made again over themselves.
- What was there before the run and is not ours is listed once, at the start, and told in `<stage>.journal`: whatever is
  there besides when the run is continued was put there by it. The manifest is the last object that is written.
"""
