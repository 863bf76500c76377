#!/bin/bash
# A scheduler and workers of this machine, that several commands share; they end with this script.
#
#   examples/cluster_local.sh 4 copgen prepare --region rome
#
# One command alone is simpler with `copgen prepare --scheduler local:4`, which starts and ends its own.

set -euo pipefail

workers=$1
shift
folder=$(mktemp -d)
trap 'kill 0; rm -rf "$folder"' EXIT

dask scheduler --host 127.0.0.1 --port 0 --dashboard-address 127.0.0.1:0 --scheduler-file "$folder/scheduler.json" 2>"$folder/scheduler.log" &
until [ -s "$folder/scheduler.json" ]; do sleep 0.1; done
dask worker --scheduler-file "$folder/scheduler.json" --nworkers "$workers" --nthreads 1 --no-dashboard \
    --local-directory "$folder" 2>"$folder/workers.log" &

"$@" --scheduler "$folder/scheduler.json"
