#!/usr/bin/env bash
# Quantizes a model with the ranks of an MPI launcher (Open MPI, MPICH, or anything that speaks PMI), which share a folder.
# A run that failed goes on where it was when it is started again.
#
#   quantize.sh RANKS MODEL OUTPUT [OPTIONS of cosetq quantize...]
set -euo pipefail
ranks=$1 model=$2 output=$3
shift 3
mpirun -n "$ranks" cosetq quantize "$model" -o "$output" --shard auto --quiet "$@"
cosetq merge "$model" -o "$output" --quiet
