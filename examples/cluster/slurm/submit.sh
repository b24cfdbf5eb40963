#!/usr/bin/env bash
# Quantizes a model on Slurm: an array of tasks with a share each, then a job that merges them. Prints the number of the
# last job, to wait for.
#
#   submit.sh TASKS MODEL OUTPUT [OPTIONS of cosetq quantize...]
set -euo pipefail
tasks=$1 model=$(realpath "$2") output=$(realpath "$3")
shift 3
here=$(cd "$(dirname "$0")" && pwd)
array=$(sbatch --parsable --array="0-$((tasks - 1))" "$here/quantize.sbatch" "$model" "$output" "$@")
sbatch --parsable --job-name=cosetq-merge --dependency="afterok:$array" --kill-on-invalid-dep=yes \
  --wrap="cosetq merge '$model' -o '$output' --quiet"
