#!/usr/bin/env bash
# Quantizes a model once on this machine and once as four tasks on Slurm, of which one is killed on its way, and compares
# the files. Runs inside a Slurm, such as the one that loopback.sh starts; cosetq has to be on the PATH.
#
#   loopback.sh test.sh MODEL [OPTIONS of cosetq quantize...]
set -euo pipefail
model=$(realpath "$1")
shift
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/alone" "$dir/shared"
cosetq quantize "$model" -o "$dir/alone/q.onnx" --quiet "$@" > /dev/null

cd "$dir"
last=$("$here/submit.sh" 4 "$model" "$dir/shared/q.onnx" "$@")

# Kill one of the running tasks as soon as some layers are done, so that it has something to go on from.
victim=
for _ in $(seq 600); do
  if compgen -G "$dir/shared/q.onnx.journal/*.layer" > /dev/null; then
    victim=$(pgrep -f -o "cosetq quantize $model -o $dir/shared/q.onnx" || true)
    [ -z "$victim" ] || break
  fi
  sleep 0.1
done
[ -n "$victim" ] || { echo "test.sh: no task was caught running" >&2; tail -n 5 "$dir"/slurm-* >&2; exit 1; }
task=$(tr '\0' '\n' < "/proc/$victim/environ" | sed -n 's/^SLURM_ARRAY_TASK_ID=//p')
kill -9 "$victim"
echo "killed task $task with $(ls "$dir"/shared/q.onnx.journal/*.layer | wc -l) layers done by all"

for _ in $(seq 600); do
  state=$(scontrol show job "$last" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p')
  case $state in
    COMPLETED) break ;;
    PENDING | RUNNING | COMPLETING | CONFIGURING) sleep 1 ;;
    *) echo "test.sh: the merge ended as $state" >&2; tail -n 20 "$dir"/slurm-* >&2; exit 1 ;;
  esac
done
grep -h "queued again" "$dir"/slurm-*_"$task".out
for file in q.onnx q.onnx.data; do
  cmp "$dir/alone/$file" "$dir/shared/$file"
done
echo "the same bytes: $(sha256sum < "$dir/shared/q.onnx" | cut -c1-16), $(sha256sum < "$dir/shared/q.onnx.data" | cut -c1-16)"
